"""Signing, pushing and accepting a model (Hydra group `release`)."""

from dataclasses import dataclass

from fedge.config.ranges import check_at_least, check_more_than, check_within
from fedge.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class ReleaseConfig:
    """The release and what a device checks before it runs it.

    Attributes:
        enabled: whether the run ends in a signed release on every device.
        root_keys: number of offline root keys, >= 1.
        root_threshold: signatures that a root needs, in [1, root_keys].
        expiry_days: life of the online metadata: the longest outage a device may sleep
            through, and the window of a freeze attack; > 0.
        reference_examples: signed inputs whose outputs a device must reproduce, >= 1.
        tolerance: largest difference of an output from the signed one, >= 0, where the
            model does not promise the same bits on every processor.
        min_top1_agreement: there, for classes and tokens, share of the largest outputs
            that must be the signed ones, in [0, 1].
        max_latency_ms: budget for one example on the device, > 0.
        max_memory_mb: memory limit of the health check's process, >= 64.
        push_seconds: patience with the devices' answers to a pushed release, > 0.
    """

    enabled: bool = True
    root_keys: int = 3
    root_threshold: int = 2
    expiry_days: float = 30.0
    reference_examples: int = 16
    tolerance: float = 1e-3
    # One of 16 references may lie where two outputs are nearly equal.
    min_top1_agreement: float = 0.9
    max_latency_ms: float = 100.0
    max_memory_mb: int = 2048
    push_seconds: float = 900.0

    def __post_init__(self) -> None:
        check_at_least("release.root_keys", self.root_keys, 1)
        if not 1 <= self.root_threshold <= self.root_keys:
            raise ConfigError(
                f"release.root_threshold: {self.root_threshold} not in "
                f"[1, {self.root_keys}] (release.root_keys)"
            )
        check_more_than("release.expiry_days", self.expiry_days, 0.0)
        check_at_least("release.reference_examples", self.reference_examples, 1)
        check_at_least("release.tolerance", self.tolerance, 0.0)
        agreement = self.min_top1_agreement
        check_within("release.min_top1_agreement", agreement, 0.0, 1.0)
        check_more_than("release.max_latency_ms", self.max_latency_ms, 0.0)
        check_at_least("release.max_memory_mb", self.max_memory_mb, 64)
        check_more_than("release.push_seconds", self.push_seconds, 0.0)
