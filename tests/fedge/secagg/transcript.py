"""A whole session from fixed bytes, for the frozen transcript.

    python -m tests.fedge.secagg.transcript > tests/vectors/secagg_transcript.json

Five clients, one without AES, in malicious mode; client 3 drops out after its keys, so
that seeds and a key are recovered. Nothing in here is drawn.
"""

import hashlib
import json
from collections.abc import Callable

import numpy as np

from fedge.arrays import AnyArray
from tests.fedge.secagg.pairs import (
    Link,
    Trip,
    cohort_of,
    run_session,
)

SIZE, DROPPED = 20, 3


def fixed_bytes(seed: str) -> Callable[[int], bytes]:
    """Return a source of bytes that always gives the same ones."""
    at = 0

    def give(count: int) -> bytes:
        nonlocal at
        at += 1
        return hashlib.shake_256(f"{seed}/{at}".encode()).digest(count)

    return give


def fixed_codes() -> AnyArray:
    """Return everybody's codes: the largest, the smallest, and what lies between."""
    return np.linspace(-32_767, 32_767, 5 * SIZE).astype(np.int64).reshape(5, SIZE)


def transcript() -> dict[str, object]:
    """Return everything that is sent, as hex."""
    cohort = cohort_of(5, size=SIZE, malicious=True, slow=[1])
    link = Link(drops={Trip.mask: [DROPPED]})
    outcome = run_session(
        cohort, fixed_codes(), link, random_bytes=fixed_bytes("session")
    )
    assert outcome.sums is not None
    return {
        "source": "python -m tests.fedge.secagg.transcript",
        "session_id": cohort.descriptor.session_id.hex(),
        "descriptor": cohort.descriptor.to_bytes().hex(),
        "roster": cohort.roster.to_bytes().hex(),
        "wire": [message.hex() for message in link.wire],
        "sums": outcome.sums.tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(transcript(), indent=1))
