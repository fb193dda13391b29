import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.data.split import stratified_split

SHARES = st.floats(0.05, 0.95)
SEEDS = st.integers(0, 2**32)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), SHARES, SEEDS)
def test_every_position_is_in_one_part_and_classes_keep_their_share(
    labels: list[int], share: float, seed: int
) -> None:
    classes = np.array(labels, np.int64)
    train, test = stratified_split(classes, test_share=share, seed=seed)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([train, test])), np.arange(len(classes))
    )
    held_out = np.bincount(classes[test], minlength=4)
    expected = [round(n * share) for n in np.bincount(classes, minlength=4).tolist()]
    assert held_out.tolist() == expected


def test_the_seed_decides_which_examples_are_held_out() -> None:
    classes = np.zeros(100, np.int64)
    _, test = stratified_split(classes, test_share=0.2, seed=1)
    _, again = stratified_split(classes, test_share=0.2, seed=1)
    _, other = stratified_split(classes, test_share=0.2, seed=2)
    assert test.tolist() == again.tolist()
    assert test.tolist() != other.tolist()
