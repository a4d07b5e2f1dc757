"""What becomes of a client's request that was looked at, and the names in it (protocol-message-formats)."""

from __future__ import annotations

from pgpooler.pooling.statements import PREFIX
from pgpooler.protocol.framer import Framer

PASS, WAIT, HOLD, REFUSE, REWRITTEN, DROPPED = range(6)
"""It goes on as it is; it is not here whole; it has its turn later; the server is not to run it; its beginning has
been replaced; something else has gone out instead."""
LONGEST_NAME = 1 << 16  # bytes; PostgreSQL cuts names at 63


def read_names(framer: Framer, skip: int, count: int) -> list[bytes] | None:
    """Read the first texts of the message at which the framer has stopped, behind `skip` bytes.

    None: they are not here yet.  Empty: there are none, and the server will say so.
    """
    whole = framer.head(LONGEST_NAME)
    names = []
    position = framer.body_start + skip
    for _ in range(count):
        stop = framer.buffer.find(b"\0", position, framer.body_stop)
        if stop < 0:
            return [] if whole else None
        names.append(bytes(framer.buffer[position:stop]))
        position = stop + 1
    return names


def own_name(name: bytes) -> bytes:
    """Make a client's name for something that is not ours one that none of ours can be."""
    return b"none of " + name if name.startswith(PREFIX) else name
