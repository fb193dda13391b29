import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedge.data.check import check_data
from fedge.data.uci_har import har_from_npz, load_uci_har
from fedge.errors import DataError


def _arrays() -> dict[str, Any]:
    """Eight windows: people 3, 5 and 7; person 5 is the test part."""
    rng = np.random.default_rng(0)
    return {
        "X": rng.integers(-4096, 4096, (8, 9, 128), np.int16),
        "y": np.array([0, 1, 2, 3, 4, 5, 0, 1], np.uint8),
        "subject": np.array([7, 7, 5, 3, 3, 3, 5, 7], np.uint8),
        "official_test": np.array([0, 0, 1, 0, 0, 0, 1, 0], np.bool_),
    }


def _npz(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_test_people_are_held_out_and_the_others_own_their_windows() -> None:
    arrays = _arrays()
    data = har_from_npz(_npz(arrays))
    assert data.owner_names == ("person 3", "person 7")
    assert data.owners.tolist() == [1, 1, 0, 0, 0, 1]
    assert data.test.targets.tolist() == [2, 0]
    np.testing.assert_array_equal(data.train.features, arrays["X"][[0, 1, 3, 4, 5, 7]])
    check_data(data)


def test_training_windows_are_standardized_per_channel() -> None:
    data = har_from_npz(_npz(_arrays()))
    inputs = data.info.normalization.apply(data.train.features)
    # Six digits of each mean and deviation.
    np.testing.assert_allclose(inputs.mean(axis=(0, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(axis=(0, 2)), 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", np.zeros((8, 9, 127), np.int16)),
        ("X", np.zeros((8, 9, 128), np.float32)),
        ("X", np.int16(1)),
        ("y", np.zeros(7, np.uint8)),
        ("y", np.array([object()] * 8)),  # pickled
        ("official_test", np.zeros(8, np.uint8)),
    ],
)
def test_arrays_of_another_form_are_refused(name: str, value: object) -> None:
    with pytest.raises(DataError, match="uci_har"):
        har_from_npz(_npz(_arrays() | {name: value}))


def test_missing_arrays_and_other_files_are_refused() -> None:
    without = {name: array for name, array in _arrays().items() if name != "y"}
    whole = _npz(_arrays())
    damaged = whole[:200] + b"\xff" * 50 + whole[250:]
    others = (_npz(without), b"", b"PK\x03\x04 no zip", whole[:-50], damaged)
    for content in others:
        with pytest.raises(DataError, match="not the expected npz file"):
            har_from_npz(content)


def test_a_well_formed_file_with_another_checksum_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "uci-har").mkdir()
    (tmp_path / "uci-har" / "har_windows.npz").write_bytes(_npz(_arrays()))
    with pytest.raises(DataError, match="sha256"):
        load_uci_har(tmp_path)


def test_without_a_folder_the_user_is_told_what_to_get() -> None:
    with pytest.raises(DataError, match=r"har_windows\.npz[\s\S]*UCI record 240"):
        load_uci_har(None)


@pytest.mark.local_data
def test_the_real_file_holds_the_published_numbers(data_root: Path) -> None:
    data = load_uci_har(data_root)
    check_data(data)
    assert (len(data.train), len(data.test), len(data.owner_names)) == (7352, 2947, 21)
    everything = np.concatenate([data.train.targets, data.test.targets])
    assert np.bincount(everything).tolist() == [1722, 1544, 1406, 1777, 1906, 1944]
    # Gravity is total minus body acceleration: about 1 g in each sample.
    gravity = (data.train.features[:, 6:9] - data.train.features[:, 0:3]) / 4096
    assert abs(np.linalg.norm(gravity, axis=1).mean() - 1.0) < 0.05
