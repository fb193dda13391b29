"""A frozen session: another version or machine must send the same bytes."""

import json
from pathlib import Path

from tests.fedge.secagg.transcript import DROPPED, fixed_codes, transcript

FILE = Path(__file__).parents[2] / "vectors" / "secagg_transcript.json"


def test_a_whole_session_is_the_frozen_one_byte_for_byte() -> None:
    assert transcript() == json.loads(FILE.read_text())


def test_the_frozen_sums_are_those_of_the_codes() -> None:
    kept = [place for place in range(5) if place != DROPPED]
    frozen = json.loads(FILE.read_text())["sums"]
    assert frozen == fixed_codes()[kept].sum(0).tolist()
