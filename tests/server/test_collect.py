from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.aggregation import UpdateMatrix, WeightedSum
from fedge.arrays import Float32
from fedge.flower import LocalGrid, PlainSum
from fedge.flower.partial import Reduction
from fedge.flower.wire import TRAIN, TrainReply
from fedge.strategy import Needs
from server.collect import Answers, collect

SIZE = 6
Reply = RecordDict | Error | None


class Scripted(LocalGrid):
    """A grid whose node i + 2 gives the answer i, in a given order; None: never."""

    def __init__(self, answers: Sequence[Reply], order: Sequence[int]) -> None:
        super().__init__(ClientApp(), num_clients=len(answers))
        self.answers = answers
        self.order = order
        self.answered = 0

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        sent = list(messages)
        for index in self.order:
            answer = self.answers[index]
            sent[index].metadata.__dict__["_message_id"] = str(index)
            if isinstance(answer, Error) or answer is not None:
                self.answered += 1
                yield Message(answer, reply_to=sent[index])


def delta(seed: int) -> Float32:
    return np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)


def good(seed: int, weight: float = 10.0) -> RecordDict:
    return TrainReply(delta(seed), weight, 0.5 + seed).to_content()


def gather(
    answers: Sequence[Reply],
    needs: Needs,
    *,
    enough: int = 100,
    order: Sequence[int] | None = None,
) -> Answers:
    grid = Scripted(answers, order if order is not None else range(len(answers)))
    top = PlainSum(grid, enough=enough) if needs is Needs.SUM else grid
    messages = [Message(RecordDict(), 2 + i, TRAIN) for i in range(len(answers))]
    return collect(top, messages, needs=needs, size=SIZE, enough=enough, timeout=None)


BOTH = pytest.mark.parametrize("needs", list(Needs))


@BOTH
def test_answers_are_counted_and_weighted(needs: Needs) -> None:
    result = gather([good(0, 10), Error(1, "broken"), good(2, 30), None], needs)
    assert (result.answered, result.failed, result.examples) == (2, 1, 40.0)
    assert result.train_loss == pytest.approx((0.5 * 10 + 2.5 * 30) / 40)
    total = result.total
    summed = total.total() if isinstance(total, UpdateMatrix) else total
    assert isinstance(summed, WeightedSum)
    np.testing.assert_allclose(
        summed.delta_sum, 10 * delta(0) + 30 * delta(2), atol=1e-4
    )


@BOTH
def test_nobody_answers(needs: Needs) -> None:
    result = gather([Error(1, "broken"), None, Error(1, "")], needs)
    assert result.total is None
    assert (result.answered, result.failed, result.examples) == (0, 2, 0.0)
    assert np.isnan(result.train_loss)


def test_each_update_is_seen_in_the_order_of_the_nodes() -> None:
    result = gather([good(0), good(1), good(2)], Needs.UPDATES, order=[2, 0, 1])
    assert isinstance(result.total, UpdateMatrix)
    np.testing.assert_array_equal(result.total.deltas, [delta(0), delta(1), delta(2)])
    assert result.total.losses.tolist() == [0.5, 1.5, 2.5]


@BOTH
@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(5)))
def test_the_order_of_the_answers_does_not_change_a_bit(
    needs: Needs, order: list[int]
) -> None:
    answers = [good(i, 0.1 + i) for i in range(5)]
    one, other = gather(answers, needs), gather(answers, needs, order=order)
    totals = [a.total for a in (one, other)]
    sums = [t.total() if isinstance(t, UpdateMatrix) else t for t in totals]
    a, b = (s.delta_sum.tobytes() for s in sums if s is not None)
    assert a == b
    assert (one.examples, one.train_loss) == (other.examples, other.train_loss)


@BOTH
def test_over_sampling_uses_exactly_as_many_answers_as_are_enough(
    needs: Needs,
) -> None:
    answers: list[Reply] = [Error(1, "broken"), *(good(i) for i in range(5))]
    result = gather(answers, needs, enough=3)
    assert (result.answered, result.failed, result.examples) == (3, 1, 30.0)


UNUSABLE: dict[str, RecordDict] = {
    "another size": TrainReply(np.zeros(SIZE + 1, np.float32), 10.0, 1.0).to_content(),
    "not finite": TrainReply(np.full(SIZE, np.nan, np.float32), 1.0, 1.0).to_content(),
    "no weight": TrainReply(delta(0), 0.0, 1.0).to_content(),
    "loss nan": TrainReply(delta(0), 1.0, float("nan")).to_content(),
    "nothing": RecordDict(),
}


@BOTH
@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_answer_is_left_out(needs: Needs, name: str) -> None:
    result = gather([good(0), UNUSABLE[name], good(2)], needs)
    assert (result.answered, result.failed, result.examples) == (2, 1, 20.0)


def test_a_device_speaks_for_itself_alone() -> None:
    liar = good(1)
    liar.metric_records["metrics"]["num-clients"] = 1000
    result = gather([good(0), liar], Needs.UPDATES)
    assert result.answered == 2
