"""Reading requests: the last one is kept, since simulated clients get the same one."""

from flwr.app import Array, RecordDict

from clients.local_task import check_spec
from fedge.arrays import Bool, ModelSpec
from fedge.compress.prune import unpack_mask
from fedge.errors import PeerError
from fedge.flower.entries import arrays_of, config_of
from fedge.flower.records import payload_key
from fedge.flower.wire import EvaluateRequest, TrainRequest


class Requests:
    """The last training request that was read.

    The same bytes and the same settings need not be checked again.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._arrays: list[Array] = []
        self._request: TrainRequest | None = None

    def read(self, content: RecordDict, spec: ModelSpec) -> TrainRequest:
        """Return the request; raise PeerError if it is malformed or not for `spec`."""
        arrays = list(arrays_of(content).values())
        settings = list(config_of(content).items())
        key = (spec, *map(payload_key, arrays), settings)
        if self._request is None or key != self._key:
            request = TrainRequest.from_content(content, size=spec.size)
            check_spec(request.spec_digest, spec.digest)
            self._key, self._request = key, request
            self._arrays = arrays  # while they are kept, no others are in their place
        return self._request


def read_evaluation(content: RecordDict, spec: ModelSpec) -> EvaluateRequest:
    """Return the request; raise PeerError if it is malformed or not for `spec`."""
    request = EvaluateRequest.from_content(content, size=spec.size)
    check_spec(request.spec_digest, spec.digest)
    return request


def mask_of(request: TrainRequest, size: int) -> Bool | None:
    """Return a request's pruning mask; raise PeerError if it is malformed."""
    if request.packed_mask is None:
        return None
    try:
        return unpack_mask(request.packed_mask, size)
    except ValueError as exc:
        raise PeerError(f"pruning mask: {exc}") from exc
