"""What devices are made of: speed, memory, network, power and heat.

A number is followed by its source; where there is none it is an estimate, and the
comment says how it was made. Four estimates are the same everywhere:

- *Training speed.* HPL (Linpack) solves in float64; in float32 the same vector unit
  does twice as many operations. Training small batches reaches a third of what a large
  matrix product does (estimate; memory and Python take the rest). So a CPU's sustained
  speed is HPL x 2 / 3, and a GPU's is a quarter of its peak.
- *One core.* HPL x 2 / cores (product pages: 4 in a Raspberry Pi, 8 in an M2).
- *Home network.* Home Wi-Fi ahead of a home line: 50 Mbit/s down, 20 up, 20 ms
  (estimate). What Wi-Fi itself can do is not what limits a Raspberry Pi 4 or 5.
- *Heat.* Degrees per watt = (steady temperature - ambient) / power; the time constant
  is fitted to how fast the published curves rise.

Sources, by letter:

[H] github.com/geerlingguy/top500-benchmark, README, results: HPL and watts at the plug.
[P] Raspberry Pi documentation, "Power supply": typical currents at 5.1 V.
[T] Raspberry Pi documentation, "Frequency management and thermal control": the Arm
    cores are throttled progressively between 80 and 85 degrees Celsius.
[C] cnx-software.com, 2021-12-09, "A deep dive into Raspberry Pi Zero 2 W's power
    consumption": idle 120 mA at 5 V.
[X] phoronix.com/review/raspberry-pi-5-benchmarks/2: without a heat sink 81 degrees on
    average and 89 at most; with the active cooler 56 and 72.
[Q] qiita.com/j-baba/items/08475f1d066d23e188eb: Raspberry Pi 5 in a room of 20 degrees,
    idle 40, under load 82.3, 84.5, 86.2 after 1, 2, 3 minutes; cooled 55.4, 58.2, 59.8.
[N] NVIDIA, "Power Management for Jetson Nano": 4 cores, GPU at most 921.6 MHz, power
    budgets of 5 and 10 W.
[D] NVIDIA, Jetson Orin Nano series data sheet: 1024 CUDA cores, at most 625 MHz, 8 GB;
    power modes of 7 and 15 W.
[A] NVIDIA, Jetson AGX Orin series technical brief: 2048 CUDA cores, 5.3 TFLOPS in
    float32; 15 to 60 W.
[L] Huang et al., "A Close Examination of Performance and Power Characteristics of 4G
    LTE Networks", MobiSys 2012: median 13 Mbit/s down, 6 Mbit/s up.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fedge.config.fleet import DeviceKind
from fedge.errors import ConfigError

_HPL_TO_TRAINING = 2.0 / 3.0
_PEAK_TO_TRAINING = 0.25
_MEGA, _GIGA = 1e6, 1e9
_MIB, _GIB = 2**20, 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Thermal:
    """A device's heat: one body with one resistance to the air (first-order RC).

    Attributes:
        ambient_celsius: the air around it.
        degrees_per_watt: how much warmer than the air it gets for each watt.
        time_constant_seconds: after so long 63 % of a change is done, > 0.
        throttle_celsius: it slows down rather than become warmer.
        throttled_factor: it never runs slower than this share of its speed, in (0, 1].
    """

    ambient_celsius: float = 25.0
    degrees_per_watt: float = 0.0
    time_constant_seconds: float = 1.0
    throttle_celsius: float = math.inf
    throttled_factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """One kind of device. Watts are the whole device's draw while it does that.

    Attributes:
        name: its kind.
        flops_per_second: sustained in float32 training.
        memory_bytes: main memory.
        down_bits_per_second, up_bits_per_second: its connection.
        latency_seconds: from a message's start to its first byte, each way.
        idle_watts, compute_watts, radio_watts: power.
        thermal: heat.
        core_flops_per_second: one CPU core in a float32 matrix product; NaN where
            nobody has measured it.
        fits_torch: whether PyTorch can be installed and used on it.
    """

    name: str
    flops_per_second: float
    memory_bytes: float
    down_bits_per_second: float
    up_bits_per_second: float
    latency_seconds: float
    idle_watts: float
    compute_watts: float
    radio_watts: float
    thermal: Thermal = Thermal()
    core_flops_per_second: float = math.nan
    fits_torch: bool = True


# Takes no time and no power: what a simulation has when nobody names a device.
IDEAL = DeviceProfile(
    name="ideal",
    flops_per_second=math.inf,
    memory_bytes=math.inf,
    down_bits_per_second=math.inf,
    up_bits_per_second=math.inf,
    latency_seconds=0.0,
    idle_watts=0.0,
    compute_watts=0.0,
    radio_watts=0.0,
)

_RASPBERRY_PI_ZERO_2 = DeviceProfile(
    name=DeviceKind.raspberry_pi_zero_2,
    flops_per_second=0.370 * _GIGA * _HPL_TO_TRAINING,  # [H]
    core_flops_per_second=0.370 * _GIGA * 2 / 4,  # [H]
    memory_bytes=512 * _MIB,  # product page
    fits_torch=False,  # importing it takes 220 of 512 MB, of which the system has 150
    down_bits_per_second=20 * _MEGA,  # estimate: 2.4 GHz only, one 802.11n stream
    up_bits_per_second=15 * _MEGA,  # estimate
    latency_seconds=0.02,  # estimate: home network
    idle_watts=0.6,  # [C]
    compute_watts=2.1,  # [H]
    radio_watts=1.2,  # estimate: between the two; the radio shares the core's supply
    thermal=Thermal(
        degrees_per_watt=25.0,  # estimate: bare board, half of a Pi 5's area
        time_constant_seconds=120.0,  # estimate: as the uncooled Pi 5's slow part
        throttle_celsius=80.0,  # [T]
        throttled_factor=0.6,  # 600 of 1000 MHz: the lowest clock
    ),
)
_RASPBERRY_PI_4 = DeviceProfile(
    name=DeviceKind.raspberry_pi_4,
    flops_per_second=11.889 * _GIGA * _HPL_TO_TRAINING,  # [H]
    core_flops_per_second=11.889 * _GIGA * 2 / 4,  # [H]
    memory_bytes=4 * _GIB,  # the middle one of 1 to 8 GB
    down_bits_per_second=50 * _MEGA,  # estimate: home network
    up_bits_per_second=20 * _MEGA,  # estimate: home network
    latency_seconds=0.02,  # estimate: home network
    idle_watts=3.06,  # [P] 0.6 A
    compute_watts=7.2,  # [H]; [P] measured 1.2 A (6.1 W) under stress
    radio_watts=3.8,  # estimate: idle and 0.15 A for the radio
    thermal=Thermal(
        degrees_per_watt=10.0,  # estimate: bare board; reaches [T]'s limit under stress
        time_constant_seconds=150.0,  # estimate
        throttle_celsius=80.0,  # [T]
        throttled_factor=0.4,  # 600 of 1500 MHz, the lowest step in [T]
    ),
)
_RASPBERRY_PI_5 = DeviceProfile(
    name=DeviceKind.raspberry_pi_5,
    flops_per_second=30.249 * _GIGA * _HPL_TO_TRAINING,  # [H]
    core_flops_per_second=30.249 * _GIGA * 2 / 4,  # [H]
    memory_bytes=8 * _GIB,  # the largest of the first series
    down_bits_per_second=50 * _MEGA,  # estimate: home network
    up_bits_per_second=20 * _MEGA,  # estimate: home network
    latency_seconds=0.02,  # estimate: home network
    idle_watts=3.3,  # estimate: [Q]'s 20 degrees when idle over 6 degrees per watt
    compute_watts=11.0,  # [H]
    radio_watts=4.1,  # estimate: idle and 0.15 A for the radio
    thermal=Thermal(
        degrees_per_watt=6.0,  # [Q]: 86.2 - 20 degrees at 11 W, without a cooler
        time_constant_seconds=30.0,  # [Q]: 9/10 of the way within the first minute
        throttle_celsius=80.0,  # [T]
        throttled_factor=0.625,  # 1500 of 2400 MHz: the lowest clock
    ),
)
_JETSON_NANO = DeviceProfile(
    name=DeviceKind.jetson_nano,
    # [N] 128 CUDA cores (product page) x 2 operations x 921.6 MHz
    flops_per_second=128 * 2 * 921.6 * _MEGA * _PEAK_TO_TRAINING,
    memory_bytes=4 * _GIB,  # product page
    down_bits_per_second=50 * _MEGA,  # estimate: home network; it has Ethernet
    up_bits_per_second=20 * _MEGA,  # estimate: home network
    latency_seconds=0.02,  # estimate: home network
    idle_watts=2.0,  # estimate: under half of the 5 W mode
    compute_watts=10.0,  # [N]
    radio_watts=2.5,  # estimate: idle and half a watt
    thermal=Thermal(
        degrees_per_watt=5.0,  # estimate: the kit's heat sink, no fan
        time_constant_seconds=300.0,  # estimate: a large heat sink
        throttle_celsius=97.0,  # estimate: below the chip's limit
        throttled_factor=0.5,  # estimate
    ),
)
_JETSON_ORIN_NANO = DeviceProfile(
    name=DeviceKind.jetson_orin_nano,
    # [D] 1024 cores x 2 operations x 625 MHz = 1.28 TFLOPS
    flops_per_second=1024 * 2 * 625 * _MEGA * _PEAK_TO_TRAINING,
    memory_bytes=8 * _GIB,  # [D]
    down_bits_per_second=50 * _MEGA,  # estimate: home network; it has Ethernet
    up_bits_per_second=20 * _MEGA,  # estimate: home network
    latency_seconds=0.02,  # estimate: home network
    idle_watts=4.0,  # estimate: over half of the 7 W mode
    compute_watts=15.0,  # [D]
    radio_watts=4.5,  # estimate: idle and half a watt
    thermal=Thermal(
        degrees_per_watt=2.5,  # estimate: the kit's heat sink with its fan
        time_constant_seconds=180.0,  # estimate
        throttle_celsius=97.0,  # estimate: below the chip's limit
        throttled_factor=0.5,  # estimate
    ),
)
_JETSON_AGX_ORIN = DeviceProfile(
    name=DeviceKind.jetson_agx_orin,
    flops_per_second=5.3e12 * _PEAK_TO_TRAINING,  # [A]
    memory_bytes=64 * _GIB,  # [A], the larger one
    down_bits_per_second=200 * _MEGA,  # estimate: wired, in a workshop or a vehicle
    up_bits_per_second=100 * _MEGA,  # estimate
    latency_seconds=0.01,  # estimate
    idle_watts=9.0,  # estimate: over half of the 15 W mode
    compute_watts=60.0,  # [A]
    radio_watts=10.0,  # estimate: idle and a watt
    thermal=Thermal(
        degrees_per_watt=1.0,  # estimate: made for 60 W without throttling
        time_constant_seconds=240.0,  # estimate
        throttle_celsius=97.0,  # estimate: as the smaller one
        throttled_factor=0.5,  # estimate
    ),
)
_PHONE = DeviceProfile(
    name=DeviceKind.phone,
    # Estimate: two large cores at 3 GHz x 16 float32 operations, a quarter of the peak
    flops_per_second=2 * 3.0 * _GIGA * 16 * _PEAK_TO_TRAINING,
    fits_torch=False,  # phones run no Python program of their own
    memory_bytes=8 * _GIB,  # estimate: the middle class
    down_bits_per_second=13 * _MEGA,  # [L]
    up_bits_per_second=6 * _MEGA,  # [L]
    latency_seconds=0.05,  # estimate: half of a cellular round trip under load
    idle_watts=0.3,  # estimate: screen off
    compute_watts=4.0,  # estimate: what a phone can give off for minutes
    radio_watts=2.5,  # estimate: cellular, between down and up
    thermal=Thermal(
        degrees_per_watt=6.0,  # estimate: 24 degrees above the air at 4 W
        time_constant_seconds=300.0,  # estimate: minutes until it is hot to the touch
        throttle_celsius=43.0,  # estimate: of the skin, which is what is held
        throttled_factor=0.5,  # estimate
    ),
)
_LAPTOP = DeviceProfile(
    name=DeviceKind.laptop,
    flops_per_second=104.68 * _GIGA * _HPL_TO_TRAINING,  # [H] MacBook Air with M2
    core_flops_per_second=104.68 * _GIGA * 2 / 8,  # [H]
    memory_bytes=16 * _GIB,  # estimate: the middle class
    down_bits_per_second=50 * _MEGA,  # estimate: home network
    up_bits_per_second=20 * _MEGA,  # estimate: home network
    latency_seconds=0.02,  # estimate: home network
    idle_watts=5.0,  # estimate: lid open, dark screen
    compute_watts=25.0,  # estimate: no fan, all cores
    radio_watts=6.5,  # estimate: idle and Wi-Fi
    thermal=Thermal(
        degrees_per_watt=3.2,  # estimate: 105 degrees at 25 W if nothing stopped it
        time_constant_seconds=240.0,  # estimate
        throttle_celsius=95.0,  # estimate
        throttled_factor=0.6,  # estimate
    ),
)

PROFILES: Mapping[DeviceKind, DeviceProfile] = MappingProxyType(
    {
        DeviceKind(profile.name): profile
        for profile in (
            _RASPBERRY_PI_ZERO_2,
            _RASPBERRY_PI_4,
            _RASPBERRY_PI_5,
            _JETSON_NANO,
            _JETSON_ORIN_NANO,
            _JETSON_AGX_ORIN,
            _PHONE,
            _LAPTOP,
        )
    }
)


def core_flops_per_second(kind: DeviceKind) -> float:
    """Return what one core of a device does in a float32 matrix product.

    Raises:
        ConfigError: nobody has measured it.
    """
    speed = PROFILES[kind].core_flops_per_second
    if not speed > 0.0:
        known = [k for k, p in PROFILES.items() if p.core_flops_per_second > 0.0]
        raise ConfigError(
            f"compression.device: the speed of one core of {kind} is not known; "
            f"choose one of {', '.join(known)}, or leave it empty and let the device's "
            f"health check measure"
        )
    return speed
