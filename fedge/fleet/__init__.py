"""Simulated devices that behave like real ones: speed, network, power, heat, absence.

Pure, apart from `trace`, which reads and writes files: a fleet says what *would* become
of a message, in virtual time, without running anything.
"""

from fedge.fleet.availability import Always, Availability, Diurnal, Markov, Windows
from fedge.fleet.clock import VirtualClock
from fedge.fleet.event import Event, Outcome
from fedge.fleet.fleet import Device, Fleet, Journey, make_fleet
from fedge.fleet.profiles import IDEAL, PROFILES, DeviceProfile, Thermal
from fedge.fleet.timeline import Arrival, Phase, Work, arrive
from fedge.fleet.trace import TraceWriter, read_trace, write_trace

__all__ = [
    "IDEAL",
    "PROFILES",
    "Always",
    "Arrival",
    "Availability",
    "Device",
    "DeviceProfile",
    "Diurnal",
    "Event",
    "Fleet",
    "Journey",
    "Markov",
    "Outcome",
    "Phase",
    "Thermal",
    "TraceWriter",
    "VirtualClock",
    "Windows",
    "Work",
    "arrive",
    "make_fleet",
    "read_trace",
    "write_trace",
]
