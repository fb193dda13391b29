from pathlib import Path

import numpy as np
import pytest

from fedge.arrays import AnyArray
from fedge.data.check import check_data
from fedge.data.dataset import FederatedData
from fedge.data.shakespeare import (
    WINDOW,
    load_shakespeare,
    shakespeare_from_text,
    speech_by_role,
)
from fedge.errors import DataError

LINE = "Now is the winter of our discontent; "


def _play() -> str:
    speeches = [
        "RICHARD:\n" + LINE * 30,
        "A SERVANT:\nMy lord.",
        "ANNE:\n" + LINE.upper() * 20,
        "RICHARD:\n" + LINE * 10,
    ]
    return "\n\n".join(speeches) + "\n"


def _text(data: FederatedData, tokens: AnyArray) -> str:
    return "".join(data.info.output_names[token] for token in tokens.tolist())


def test_a_role_says_all_its_speeches_in_order_without_its_name() -> None:
    text = "A:\nfirst\nline\n\nB:\nother\n\nA:\nlast\n\nC:\n\nnobody says this\n"
    assert speech_by_role(text) == {"A": "first\nline\nlast\n", "B": "other\n"}


def test_targets_are_the_characters_that_follow() -> None:
    data = shakespeare_from_text(_play())
    check_data(data)
    np.testing.assert_array_equal(
        data.train.features[:, 1:], data.train.targets[:, :-1]
    )
    np.testing.assert_array_equal(
        data.train.targets[:-1, -1][np.diff(data.owners) == 0],
        data.train.features[1:, 0][np.diff(data.owners) == 0],
    )


def test_windows_spell_what_the_role_says_and_the_end_is_held_out() -> None:
    data = shakespeare_from_text(_play())
    speech = speech_by_role(_play())["RICHARD"]
    assert data.owner_names == ("ANNE", "RICHARD")
    train = data.train.features[data.owners == 1]
    test = data.test.features[2:]  # Anne's two windows come first
    assert (
        _text(data, np.concatenate([train, test]).ravel())
        == (speech[: (len(train) + len(test)) * WINDOW])
    )
    assert len(test) == round(0.2 * (len(train) + len(test)))


def test_a_play_in_which_nobody_says_enough_is_refused() -> None:
    with pytest.raises(DataError, match="no role"):
        shakespeare_from_text("A:\nfirst\n\nB:\nsecond\n")


def test_without_a_folder_the_user_is_told_what_to_get() -> None:
    with pytest.raises(DataError, match=r"input\.txt[\s\S]*char-rnn"):
        load_shakespeare(None)


def test_another_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny-shakespeare").mkdir()
    (tmp_path / "tiny-shakespeare" / "input.txt").write_text(_play())
    with pytest.raises(DataError, match="sha256"):
        load_shakespeare(tmp_path)


@pytest.mark.local_data
def test_the_real_text_has_its_65_characters_and_169_speaking_roles(
    data_root: Path,
) -> None:
    data = load_shakespeare(data_root)
    check_data(data)
    assert data.info.num_outputs == 65
    assert len(data.owner_names) == 169
    assert (len(data.train), len(data.test)) == (12_421, 3_103)
    richard = data.owner_names.index("GLOUCESTER")
    first = data.train.features[data.owners == richard][0]
    assert _text(data, first).startswith("Now is the winter of our discontent")
