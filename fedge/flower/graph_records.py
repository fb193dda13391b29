"""A training or evaluation graph in a message: packed bytes and the file's digest.

The graph is an array of the message like the model, so a secure session's id covers it:
all devices of a masked sum have run the same graph.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedge.compress.pack import pack, unpack
from fedge.errors import CompressionError, DigestMismatchError, PeerError
from fedge.flower.entries import arrays_of, config_of, read_entry
from fedge.flower.records import array_of, read_array
from fedge.runtime.graph_check import MAX_GRAPH_BYTES

MAX_PACKED_BYTES = 1 << 20
_ARRAY, _DIGEST = "graph", "graph-sha256"
_LEVEL = 19  # once a run, and then sent to everybody


@dataclass(frozen=True, slots=True)
class PackedGraph:
    """A graph as it travels.

    Attributes:
        data: one zstd frame.
        sha256: of the file in it, hex.
    """

    data: bytes
    sha256: str

    @classmethod
    def of(cls, model: bytes) -> "PackedGraph":
        """Pack an ONNX file.

        Raises:
            CompressionError: it is larger than devices accept.
        """
        data = pack(model, level=_LEVEL)
        if len(data) > MAX_PACKED_BYTES or len(model) > MAX_GRAPH_BYTES:
            raise CompressionError(
                f"graph: {len(model)} bytes, {len(data)} packed; devices accept at "
                f"most {MAX_GRAPH_BYTES} and {MAX_PACKED_BYTES}"
            )
        return cls(data, hashlib.sha256(model).hexdigest())

    def model(self) -> bytes:
        """Return the file.

        Raises:
            VerificationError: it is damaged, too large, or another file than declared.
        """
        model = unpack(self.data, max_bytes=MAX_GRAPH_BYTES)
        if hashlib.sha256(model).hexdigest() != self.sha256:
            raise DigestMismatchError("graph: the file is not the one that is declared")
        return model

    def add_to(self, arrays: ArrayRecord, config: ConfigRecord) -> None:
        """Put the graph into the records of a message."""
        arrays[_ARRAY] = array_of(np.frombuffer(self.data, np.uint8))
        config[_DIGEST] = self.sha256


def graph_in(content: RecordDict) -> PackedGraph | None:
    """Return a message's graph, if it has one.

    Raises:
        PeerError: it is malformed or too large.
    """
    arrays = arrays_of(content)
    if _ARRAY not in arrays:
        return None
    data = read_array(arrays[_ARRAY])
    if data.dtype != np.uint8 or data.ndim != 1 or data.size > MAX_PACKED_BYTES:
        raise PeerError(
            f"array {_ARRAY!r}: {data.dtype} {data.shape}, need at most "
            f"{MAX_PACKED_BYTES} uint8"
        )
    return PackedGraph(data.tobytes(), read_entry(config_of(content), _DIGEST, str))
