"""The round loop (Hydra group `run`)."""

from dataclasses import dataclass, field

from fedge.config.ranges import check_at_least, check_within
from fedge.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class RunConfig:
    """How long, with whom, and how patient.

    Attributes:
        rounds: rounds to train, >= 1.
        cohort: devices whose answers a round uses, >= 1.
        over_sampling: share of further devices asked, in [0, 10]; the first `cohort`
            answers count.
        min_answers: a round with fewer answers changes nothing and is tried again with
            another cohort, in [1, cohort].
        max_attempts: failed tries of one round before the run stops, >= 1.
        deadline_seconds: a round's training ends after so long; 0 waits for everybody.
        evaluate_every: evaluate the global model every so many rounds, >= 1.
        evaluate_on_devices: also evaluate on each cohort's own data.
        seed: of everything random that is not a secret, in [0, 2**63).
        allow: further packages from which a strategy, a loader or a model may come.
        profile: find out where the time of each round goes: `profile.json`, a table and
            a picture. It costs some microseconds per client.
        resume: folder of an earlier run to continue; empty starts a new one.
    """

    rounds: int = 20
    cohort: int = 10
    over_sampling: float = 0.0
    min_answers: int = 1
    max_attempts: int = 3
    deadline_seconds: float = 0.0
    evaluate_every: int = 1
    evaluate_on_devices: bool = False
    seed: int = 0
    allow: list[str] = field(default_factory=list)
    profile: bool = False
    resume: str = ""

    def __post_init__(self) -> None:
        check_at_least("run.rounds", self.rounds, 1)
        check_at_least("run.cohort", self.cohort, 1)
        check_within("run.over_sampling", self.over_sampling, 0.0, 10.0)
        if not 1 <= self.min_answers <= self.cohort:
            raise ConfigError(
                f"run.min_answers: {self.min_answers} not in [1, {self.cohort}] "
                f"(run.cohort)"
            )
        check_at_least("run.max_attempts", self.max_attempts, 1)
        check_at_least("run.deadline_seconds", self.deadline_seconds, 0.0)
        check_at_least("run.evaluate_every", self.evaluate_every, 1)
        check_at_least("run.seed", self.seed, 0)
        for package in self.allow:
            if not all(part.isidentifier() for part in package.split(".")):
                raise ConfigError(f"run.allow: {package!r} is not a package name")
