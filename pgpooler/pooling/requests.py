"""What becomes of a client's request that was looked at, and the names in it (protocol-message-formats)."""

from __future__ import annotations

from pgpooler.protocol.framer import Framer

PASS, WAIT, HOLD, REFUSE, REWRITTEN, DROPPED, APART = range(7)
"""It goes on as it is; it is not here whole; it has its turn later; the server is not to run it; its beginning has
been replaced; something else has gone out instead; it has its turn when a batch of our own is done."""
LONGEST_NAMES = 1 << 16  # bytes of a message in which its names are looked for


def read_names(framer: Framer, count: int) -> list[bytes] | None:
    """Read the first texts of the message at which the framer has stopped.

    None: they are not here yet.  Empty: there are none, and the server will say so.
    """
    whole = framer.head(LONGEST_NAMES)
    names = []
    position = framer.body_start
    for _ in range(count):
        stop = framer.buffer.find(b"\0", position, framer.body_stop)
        if stop < 0:
            return [] if whole else None
        names.append(bytes(framer.buffer[position:stop]))
        position = stop + 1
    return names


def own_name(name: bytes, ours: bytes) -> bytes:
    """Make a client's name for something that is not ours one that none of ours can be, which begin with `ours`."""
    return b"none of " + name if name.startswith(ours) else name
