"""Devices whose times can be computed in one's head."""

from fedge.fleet import DeviceProfile, Event, Outcome, Thermal, Work

# 8 bytes a second each way, an operation a second; 1, 5 and 2 watts; no heat.
SIMPLE = DeviceProfile(
    name="simple",
    flops_per_second=1.0,
    memory_bytes=1e9,
    down_bits_per_second=64.0,
    up_bits_per_second=64.0,
    latency_seconds=0.5,
    idle_watts=1.0,
    compute_watts=5.0,
    radio_watts=2.0,
)
# 20 degrees, 10 more for each watt; may not pass 50: 3 W, half of the way from 1 to 5.
HOT = Thermal(
    ambient_celsius=20.0,
    degrees_per_watt=10.0,
    time_constant_seconds=10.0,
    throttle_celsius=50.0,
    throttled_factor=0.25,
)
WORK = Work(bytes_down=16, bytes_up=8, flops=10.0)


def row(
    device: int = 0,
    sent: float = 0.0,
    received: float = 1.0,
    outcome: Outcome = Outcome.ok,
    phase: str = "train",
    bytes_down: int = 100,
    bytes_up: int = 100,
    compute: float = 0.5,
    energy: float = 2.0,
) -> Event:
    return Event(
        device=device,
        phase=phase,
        sent_seconds=sent,
        received_seconds=received,
        bytes_down=bytes_down,
        bytes_up=bytes_up,
        compute_seconds=compute,
        energy_joules=energy,
        outcome=outcome,
    )
