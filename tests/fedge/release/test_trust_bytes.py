"""Every byte counts: changed bundles are refused, or the change means nothing."""

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import (
    VerificationError,
)
from fedge.release.bundle import ReleaseBundle
from fedge.release.keys import KeyRing
from fedge.release.trust import TrustStore, VerifiedRelease
from tests.fedge.release import kit
from tests.fedge.release.faulty_disk import UnsyncedDisk

YEAR_1970 = datetime(1970, 1, 2, tzinfo=UTC)


# Of about 2,400 bytes; set it to None for all of them (ten seconds more).
NUM_FLIPS: int | None = 600


def flipped(bundle: ReleaseBundle, name: str, at: int, bit: int) -> ReleaseBundle:
    """The bundle with one bit of one file changed."""
    data = bytearray({**bundle.metadata, **bundle.targets}[name])
    data[at] ^= 1 << bit
    changed = {name: bytes(data)}
    return ReleaseBundle(
        {key: changed.get(key, bundle.metadata[key]) for key in bundle.metadata},
        {key: changed.get(key, bundle.targets[key]) for key in bundle.targets},
    )


def verified_or_none(
    store: TrustStore, bundle: ReleaseBundle
) -> VerifiedRelease | None:
    try:
        return store.verify(bundle, now=kit.NOW)
    except VerificationError:
        return None


def test_a_changed_byte_is_refused_or_changes_nothing(
    tmp_path: Path, keys: KeyRing
) -> None:
    opened = kit.repository(tmp_path / "repository", keys)
    artifact, passport = kit.release(1)
    opened.publish(artifact, kit.with_references(passport, 1), now=kit.NOW)
    bundle, root = opened.bundle(), opened.trusted_root()
    genuine = kit.device(tmp_path, root).verify(bundle, now=kit.NOW)
    files, bits = {**bundle.metadata, **bundle.targets}, np.random.default_rng(0)
    flips = [(name, at) for name, data in files.items() for at in range(len(data))]
    assert len(flips) > 2000
    for number in bits.permutation(len(flips))[:NUM_FLIPS]:
        name, at = flips[number]
        store = kit.device(tmp_path / f"{number}", root, disk=UnsyncedDisk())
        changed = flipped(bundle, name, at, int(bits.integers(8)))
        assert verified_or_none(store, changed) in (None, genuine), (name, at)


def test_metadata_of_any_form_is_refused_with_our_error(
    tmp_path: Path, keys: KeyRing
) -> None:
    opened = kit.published(tmp_path / "repository", keys, 1)
    bundle, root = opened.bundle(), opened.trusted_root()
    numbers = itertools.count()

    @settings(max_examples=80, deadline=None, derandomize=True)
    @given(name=st.sampled_from([*bundle.metadata, "2.root.json"]), data=st.data())
    def check(name: str, data: st.DataObject) -> None:
        genuine = bundle.metadata.get(name, root)
        plain = mutated(json.loads(genuine), data)
        store = kit.device(tmp_path / f"{next(numbers)}", root, disk=UnsyncedDisk())
        file = {name.replace(".", "_"): json.dumps(plain).encode()}
        verified_or_none(store, kit.with_metadata(bundle, **file))

    check()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def mutated(plain: object, data: st.DataObject) -> object:
    """A JSON value with one part, at any depth, replaced by anything."""
    if isinstance(plain, dict) and plain and data.draw(st.integers(0, 4)):
        key = data.draw(st.sampled_from(sorted(plain)))
        return {**plain, key: mutated(plain[key], data)}
    if isinstance(plain, list) and plain and data.draw(st.integers(0, 4)):
        return [mutated(plain[0], data), *plain[1:]]
    return data.draw(JSON_VALUES)
