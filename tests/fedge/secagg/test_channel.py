from fedge.secagg.channel import (
    ChannelKey,
)

NOW = 1_800_000_000
# RFC 7748, section 6.1.
ALICE = ChannelKey.from_bytes(
    bytes.fromhex(
        "77076d0a7318a57d3c16c17251b26645df4c2f92ebc0995d9dd7d2a3a0a2c1a7"[:64]
    )
)
