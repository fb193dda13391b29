"""What a Ray actor does: run clients in worker processes of its machine, add up.

Nothing in here knows Ray. An actor is told who its clients are (a function by name),
then requests: their contents once, then clients to run, bit by bit. It answers with
what is ready, and adds the sums of its workers up to one. What it is given and what it
returns is text and bytes (`parcels`).
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from flwr.app import Message, RecordDict
from flwr.app.message.message import make_message
from flwr.clientapp import ClientApp

from fedge.errors import ConfigError, FedgeError
from fedge.flower.client_runner import Clients
from fedge.flower.client_states import ClientStates
from fedge.flower.codec import Blobs, Plain, copy_content, encode_content
from fedge.flower.growing_pool import GrowingPool
from fedge.flower.job import Job
from fedge.flower.node_list import claim_task_identity
from fedge.flower.parcels import pack, unpack
from fedge.flower.partial import nodes_of, payload_of
from fedge.flower.processes import can_fork
from fedge.flower.worker import metadata_of
from fedge.flower.worker_limits import Limits


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What an actor is told first.

    Attributes:
        clients: the function that makes its clients, "package.module:function".
        arguments: what that function is given.
        num_clients: how many clients it must make.
        run_id: the run they take part in.
        workers: processes that run clients.
        threads: of one client's computation.
        memory_bytes: private memory a worker may use beyond what it starts with.
        client_seconds: a client that computes for longer is ended; 0: no limit.
        batching: whether clients may be computed together.
        sys_path: folders where modules are looked for after the actor's own.
    """

    clients: str
    arguments: str
    num_clients: int
    run_id: int
    workers: int
    threads: int
    memory_bytes: int
    client_seconds: float
    batching: bool
    sys_path: list[str]

    def to_json(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(asdict(self))


class Host:
    """The actor. Its methods never raise: a failure is an answer, too."""

    def __init__(self) -> None:
        self._pool: GrowingPool | None = None
        self._states = ClientStates()
        self._request: _Request | None = None
        self._changed: dict[int, None] = {}
        self._failure = b""

    def open(self, settings: str) -> bytes:
        """Make the clients and start the workers.

        Args:
            settings: `HostSettings` as JSON.
        """
        return _guarded(lambda: self._open(HostSettings(**json.loads(settings))))

    def begin(self, body: bytes) -> None:
        """Begin a request; a failure is the answer to what is asked next.

        Args:
            body: what its messages have in common, packed.
        """
        self._failure = _guarded(lambda: self._begin(body))

    def work(self, parcel: bytes) -> bytes:
        """Take clients, or finish what was given, and tell what is ready."""
        return self._failure or _guarded(lambda: self._work(parcel))

    # -- what is asked ----------------------------------------------------------------

    def _open(self, settings: HostSettings) -> bytes:
        if not can_fork():
            raise ConfigError(
                f"{sys.platform} cannot run worker processes; the nodes of the cluster "
                f"must run Linux"
            )
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
        sys.path += [path for path in settings.sys_path if path not in sys.path]
        claim_task_identity(settings.run_id)
        self._states = ClientStates(on_keep=self._note_change)
        self._pool = GrowingPool(
            make_clients(settings),
            num_workers=settings.workers,
            limits=Limits(settings.threads, settings.memory_bytes),
            client_seconds=settings.client_seconds,
            states=self._states,
        )
        return pack(["open", os.getpid(), self._pool.computes_together])

    def _begin(self, body: bytes) -> bytes:
        assert self._pool is not None
        structure, blobs = unpack(body)
        self._request = _Request(self._pool.begin(structure, blobs), structure[2])
        return b""

    def _work(self, parcel: bytes) -> bytes:
        request, pool = self._request, self._pool
        assert request is not None
        assert pool is not None
        (what, items, groups, forget, seconds_left), blobs = unpack(parcel)
        deadline = None if seconds_left is None else time.monotonic() + seconds_left
        for node in forget:
            self._states.send_away(node)
        match what:
            case "give":
                self._give(request, pool, items, groups, blobs)
                pool.advance(deadline)
                return self._report(request, [])
            case "finish":
                is_all = pool.finish(deadline)
            case _:
                is_all = pool.conclude()
        return self._report(request, request.take_sums() if is_all else [])

    def _give(
        self,
        request: "_Request",
        pool: GrowingPool,
        items: Plain,
        groups: list[int],
        blobs: list[bytes],
    ) -> None:
        messages, contents, kinds = [], [], []
        for number, content, kind, node, message_id, created_at, state in items:
            if state is not None:
                own = Blobs()
                structure = copy_content(state, blobs, own)
                self._states.bring(node, structure, own.items)
            metadata = metadata_of(request.kinds[kind], node, message_id, created_at)
            messages.append(make_message(metadata, RecordDict()))
            contents.append(content)
            kinds.append(kind)
            request.numbers.append(number)
        pool.give(messages, contents, kinds, groups)

    # -- what is told -----------------------------------------------------------------

    def _report(self, request: "_Request", sums: Sequence[Message]) -> bytes:
        blobs = Blobs()
        answers = request.job.answers
        request.job.answers = {}
        replies = [
            _encode_reply(request.numbers[number], reply, blobs)
            for number, reply in sorted(answers.items())
        ]
        partials = [
            [nodes_of(one), payload_of(one), encode_content(one.content, blobs)]
            for one in sums
        ]
        states = [[node, self._state_of(node, blobs)] for node in self._changed]
        self._changed = {}
        num_done, seconds = request.progress()
        structure = ["report", num_done, seconds, replies, partials, states]
        return pack(structure, blobs.items)

    def _state_of(self, node: int, blobs: Blobs) -> Plain:
        kept = self._states.kept(node)
        return None if kept is None else copy_content(*kept, blobs)

    def _note_change(self, node: int) -> None:
        self._changed[node] = None


class _Request:
    """One request, as far as this actor takes part in it."""

    def __init__(self, job: Job, kinds: Plain) -> None:
        self.job = job
        self.kinds = kinds
        self.numbers: list[int] = []  # of the clients, where they come from
        self._num_told = 0
        self._told_at = time.monotonic()

    def take_sums(self) -> list[Message]:
        """Return what the workers have handed over, and begin new sums."""
        job = self.job
        sums = list(job.partials())
        job.refused = []
        job.total = job.reduction.start() if job.reduction else None
        return sums

    def progress(self) -> tuple[int, float]:
        """Return how many more clients are done, and in which time."""
        num_done, now = self.job.num_done - self._num_told, time.monotonic()
        if num_done <= 0:
            return 0, 0.0
        seconds = now - self._told_at
        self._num_told, self._told_at = self.job.num_done, now
        return num_done, seconds


def _encode_reply(number: int, reply: Message, blobs: Blobs) -> Plain:
    if reply.has_error():
        return [number, True, [reply.error.code, reply.error.reason]]
    return [number, False, encode_content(reply.content, blobs)]


def _guarded(act: Callable[[], bytes]) -> bytes:
    try:
        return act()
    except FedgeError as exc:
        return pack(["failed", type(exc).__name__, str(exc)])
    except (Exception, SystemExit) as exc:  # whatever it is, the other side is told
        return pack(["failed", "", f"{type(exc).__name__}: {exc}"])


# -- clients by name ------------------------------------------------------------------


def make_clients(settings: HostSettings) -> Clients:
    """Return the clients that the settings name.

    Raises:
        ConfigError: there is no such function, it fails, or makes something else.
    """
    function = _load(settings.clients)
    try:
        clients = function(settings.arguments)
    except FedgeError:
        raise
    except Exception as exc:
        raise ConfigError(
            f"clients: {settings.clients} failed: {type(exc).__name__}: {exc}"
        ) from exc
    if not isinstance(clients, Clients) or clients.count != settings.num_clients:
        raise ConfigError(
            f"clients: {settings.clients} must return the Clients of "
            f"{settings.num_clients} clients, not {_in_words(clients)}"
        )
    batching = clients.batching and settings.batching
    return replace(clients, run_id=settings.run_id, batching=batching)


def clients_of_app(arguments: str) -> Clients:
    """Return clients that run an app as it is; see `RayGrid.of_app`.

    Args:
        arguments: JSON: the app ("package.module:app"), how many, the run config.

    Raises:
        ConfigError: there is no such app.
    """
    ref, count, run_config = json.loads(arguments)
    app = _load(ref)
    if not isinstance(app, ClientApp):
        raise ConfigError(f"clients: {ref} is a {type(app).__name__}, not a ClientApp")
    return Clients(app, count, run_config=run_config)


def _in_words(found: object) -> str:
    if isinstance(found, Clients):
        return f"those of {found.count}"
    return f"a {type(found).__name__}"


def _load(ref: str) -> Callable[..., object]:
    module, _, name = ref.partition(":")
    try:
        found: Callable[..., object] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ConfigError(
            f"clients: {ref!r} cannot be imported: {exc}; write "
            f"package.module:name, and let all nodes find the package"
        ) from exc
    return found
