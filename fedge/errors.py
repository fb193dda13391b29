"""Every error of ours, grouped by what the caller does next.

    FedgeError
    ├── ConfigError (also ValueError)   fix your settings; raised before any work starts
    ├── DataError                       a file is missing or damaged: repair it
    ├── ProtocolError
    │   ├── PeerError                   one peer broke a rule: leave it out, go on
    │   ├── RoundAbortedError           the round is lost: discard everything of it
    │   └── MisuseError                 our code called in the wrong order: a bug
    ├── JournalError                    the stored run cannot be continued as it is
    ├── VerificationError               do not install
    │   ├── BadSignatureError           nobody we trust has signed this
    │   ├── RolledBackError             older than what we have already accepted
    │   ├── ExpiredError                too old to be believed
    │   ├── DigestMismatchError         not the bytes that were signed
    │   └── HealthCheckError            genuine, but it does not work on this device
    ├── CompressionError                the model misses its target; publish nothing
    └── TransportError                  try again later

Messages say what, the value, the allowed range, and a remedy; never a secret.
"""


class FedgeError(Exception):
    """Anything fedge refuses to do; catch a subclass to react to it."""


class ConfigError(FedgeError, ValueError):
    """A setting is wrong; raised before any work starts."""


class DataError(FedgeError):
    """A data file is missing, damaged, or not what it should be."""


class ProtocolError(FedgeError):
    """Somebody broke the rules of a round."""


class PeerError(ProtocolError):
    """One peer broke a rule: leave it out and go on."""


class RoundAbortedError(ProtocolError):
    """The round is lost: discard everything that belongs to it."""


class MisuseError(ProtocolError):
    """Our own code was called in the wrong order."""


class JournalError(FedgeError):
    """The stored run is damaged, or belongs to other settings."""


class VerificationError(FedgeError):
    """Do not install this release."""


class BadSignatureError(VerificationError):
    """Nobody this device trusts has signed this."""


class RolledBackError(VerificationError):
    """Older than what this device has already accepted."""


class ExpiredError(VerificationError):
    """Too old to be believed."""


class DigestMismatchError(VerificationError):
    """Not the bytes that were signed."""


class HealthCheckError(VerificationError):
    """Genuine, but it does not work on this device."""


class CompressionError(FedgeError):
    """The compressed model misses its target; publish nothing."""


class TransportError(FedgeError):
    """The network or a peer did not answer: try again later."""
