"""A child process that commits rounds until it is killed; not a test."""

import sys
from pathlib import Path

from server.journal import Journal, RoundRecord


def record_of(round_index: int) -> RoundRecord:
    return RoundRecord(
        round_index=round_index,
        attempts=1,
        asked=3,
        answered=3,
        failed=0,
        examples=30.0,
        train_loss=1.0,
        loss=float("nan"),
        score=0.5,
        device_score=float("nan"),
        learning_rate=0.1,
        sparsity=0.0,
        bytes_down=1,
        bytes_up=1,
        seconds=0.1,
    )


def state_of(round_index: int) -> bytes:
    return bytes([round_index % 256]) * 20_000


def main() -> None:
    journal = Journal.open(Path(sys.argv[1]), "{}")
    journal.begin(state_of(-1))
    last = journal.last()
    round_index = last.round_index + 1 if last else 0
    while True:
        journal.commit(
            record_of(round_index), state_of(round_index), best=state_of(round_index)
        )
        print(round_index, flush=True)
        round_index += 1


if __name__ == "__main__":
    main()
