"""The yardstick: federated averaging as a plain PyTorch loop, without any framework.

What somebody writes who wants nothing but this one experiment, and wants it fast: one
model per process, trained client by client and summed up in place. With two processes
each trains half of the cohort; the model and the sums lie in shared memory, so that a
round moves a few bytes through a pipe and nothing else.
"""

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simulations.benchmarks import workload

_STOP_SECONDS = 10.0


class _Trainer:
    """One process's model, and where it finds the global one and leaves its sum."""

    def __init__(self, model: nn.Module, global_: Tensor, total: Tensor) -> None:
        self._model = model
        self._params = list(model.parameters())
        self._global = _views(global_, self._params)
        self._flat_total = total
        self._total = _views(total, self._params)
        self._optimizer = torch.optim.SGD(self._params, lr=workload.LEARNING_RATE)

    def train(self, cohort: Sequence[int]) -> None:
        """Leave the sum of these clients' models, weighted by examples."""
        self._flat_total.zero_()
        for client in cohort:
            self._start()
            num_examples = self._train_client(client)
            self._add(num_examples)

    @torch.no_grad()
    def _start(self) -> None:
        for value, global_ in zip(self._params, self._global, strict=True):
            value.copy_(global_)

    def _train_client(self, client: int) -> int:
        num_examples = 0
        for images, labels in workload.client_batches(client):
            loss = F.cross_entropy(self._model(images), labels)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            self._optimizer.step()
            num_examples += len(labels)
        return num_examples

    @torch.no_grad()
    def _add(self, num_examples: int) -> None:
        for total, value in zip(self._total, self._params, strict=True):
            total.add_(value, alpha=num_examples)


class BareLoop:
    """Rounds of federated averaging; `bare_loop` makes it and cleans up after it.

    Attributes:
        params: the global model, float32, shape (d,), parameter after parameter.
    """

    def __init__(
        self, params: Tensor, totals: Tensor, own: _Trainer, others: list[Connection]
    ) -> None:
        self.params = params
        self._totals, self._own, self._others = totals, own, others

    def __call__(self, round_index: int) -> None:
        """Train the cohort of this round and put the average in the model's place.

        Raises:
            EOFError: another process has died.
        """
        for other in self._others:
            other.send_bytes(str(round_index).encode())
        cohort = workload.draw_cohort(round_index)
        self._own.train(cohort[:: len(self._others) + 1])
        for other in self._others:
            other.recv_bytes()
        torch.sum(self._totals, 0, out=self.params)
        self.params.div_(len(cohort) * workload.EXAMPLES_PER_CLIENT)


@contextmanager
def bare_loop(
    model_name: str, *, num_processes: int, channels_last: bool = False
) -> Iterator[BareLoop]:
    """Give a loop, ready to run; torch computes with one thread meanwhile.

    Guarantee: after the block there is no process left that was not there before.

    Args:
        model_name: see `workload.make_model`.
        num_processes: this one, which does its part, and forked ones; >= 1.
        channels_last: lay convolutions out as CPUs like them best.
    """
    model = workload.make_model(model_name)
    params = _shared(nn.utils.parameters_to_vector(model.parameters()).detach())
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub
    totals = _shared(torch.zeros(num_processes, len(params)))
    workload.examples()  # before forking, so that all share them
    with ExitStack() as stack:
        stack.enter_context(_one_thread())
        trainers = [_Trainer(model, params, total) for total in totals]
        pipes = [
            stack.enter_context(_process(trainer, part, num_processes))
            for part, trainer in enumerate(trainers[1:], start=1)
        ]
        yield BareLoop(params, totals, trainers[0], pipes)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _process(trainer: _Trainer, part: int, num_parts: int) -> Iterator[Connection]:
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    child = fork.Process(
        target=_serve, args=(trainer, part, num_parts, here, there), daemon=True
    )
    child.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        child.join(_STOP_SECONDS)
        child.kill()
        child.join()


def _serve(
    trainer: _Trainer, part: int, num_parts: int, parent: Connection, own: Connection
) -> None:
    parent.close()  # or the parent's end would never look closed
    while True:
        try:
            round_index = int(own.recv_bytes())
        except EOFError:
            return
        trainer.train(workload.draw_cohort(round_index)[part::num_parts])
        own.send_bytes(b"done")


def _shared(tensor: Tensor) -> Tensor:
    shared: Tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
    return shared


def _views(vector: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    sizes = [value.numel() for value in params]
    parts = zip(torch.split(vector, sizes), params, strict=True)
    return [part.view(value.shape) for part, value in parts]
