"""Cuts a byte stream into what a pooler must look at and what it passes on untouched.

Three verbs (protocol-message-formats gives the header: one type byte, then Int32 length that counts itself):

- `run` advances over messages that nobody watches, also when the last of them has only partly arrived, and stops at
  the first watched one.  The bytes from `mark` to `position` are the run: one stretch to be passed on.
- `take` says whether the watched message is here whole; its body then lies from `body_start` to `body_stop`.
- `head` says whether its first fields are here; the rest may still be on its way.

What was looked at is settled by `pass_on` (the message joins the run, and what is missing of it will follow
unlooked at) or `drop` (it is not passed on).  `passed` says that the run is out; `keep` saves what is left, because the
buffer belongs to the caller, who reads into it again.

This module is compiled by Cython from this very file (framer.pxd beside it).
"""

from __future__ import annotations

from pgpooler.errors import ProtocolViolation

LONGEST = 0x3FFFFFFE  # PQ_LARGE_MESSAGE_LIMIT; a longer one, or a negative length, is no message
EMPTY = bytearray()


def watching(types: bytes, unknown: bytes = b"") -> bytes:
    """Make a table for `run`: 256 flags, set for every type in `types` and for every type that `unknown` lacks.

    `unknown` names all legal types of a direction, so that the session sees the illegal ones; empty: they pass.
    """
    return bytes(1 if kind in types or (unknown and kind not in unknown) else 0 for kind in range(256))


class Framer:
    """The bytes at hand from one peer, and how far they have been looked at.

    Attributes to read: `buffer`, the run `mark`..`position`, and after `run` returned a type: `type` and `length`
    (bytes on the wire, header included); after `take` or `head`: `body_start` and `body_stop`.
    """

    __slots__ = ("body_start", "body_stop", "buffer", "end", "kept", "length", "mark", "passing", "position", "type")

    def __init__(self) -> None:
        self.buffer = EMPTY
        self.mark = 0
        self.position = 0
        self.end = 0
        self.passing = 0
        self.type = 0
        self.length = 0
        self.body_start = 0
        self.body_stop = 0
        self.kept = EMPTY

    def feed(self, buffer: bytearray, start: int, stop: int) -> None:
        """Look at buffer[start:stop] next.  The buffer is borrowed until `keep`."""
        if self.kept:
            self.kept += memoryview(buffer)[start:stop]
            self.buffer = self.kept
            self.end = len(self.kept)
        else:
            self.buffer = buffer
            self.mark = start
            self.position = start
            self.end = stop

    def run(self, watched: bytes) -> int:
        """Advance to the next watched message and return its type; 0 when the bytes at hand are used up.

        Raises ProtocolViolation for a length below 4 or beyond a gigabyte, and for a watched type 0: there is none.
        """
        buffer = self.buffer
        position = self.position
        end = self.end
        if self.passing:
            step = end - position
            if step > self.passing:
                step = self.passing
            self.passing -= step
            position += step
        while end - position >= 5:
            kind = buffer[position]
            size = buffer[position + 1]
            size = (size << 8) | buffer[position + 2]
            size = (size << 8) | buffer[position + 3]
            size = (size << 8) | buffer[position + 4]
            if size < 4 or size > LONGEST:
                self.position = position
                raise ProtocolViolation("invalid message length", detail=_signed(kind, size))
            if watched[kind]:
                self.position = position
                if not kind:  # which would say that there is nothing to look at
                    raise ProtocolViolation("invalid message type 0")
                self.type = kind
                self.length = size + 1
                return kind
            if size >= end - position:
                self.passing = size + 1 - (end - position)
                position = end
                break
            position += size + 1
        self.position = position
        return 0

    def take(self, limit: int) -> bool:
        """Say whether the message that `run` stopped at is here whole; `limit` bounds its length word.

        Raises ProtocolViolation when it is longer: nothing is buffered for a sender who announces too much.
        """
        if self.length - 1 > limit:
            raise ProtocolViolation("invalid message length", detail=_signed(self.type, self.length - 1))
        return self.head(self.length)

    def head(self, count: int) -> bool:
        """Say whether the first `count` bytes of the body (or all of it, if it is shorter) are here."""
        self.body_start = self.position + 5
        self.body_stop = self.position + self.length
        if self.body_stop > self.end:
            self.body_stop = self.end
            return self.end - self.body_start >= count
        return True

    def startup(self, limit: int) -> bool:
        """Say whether the next startup packet, which has no type byte, is here whole; `limit` bounds its length word.

        Raises ProtocolViolation for a length below 8 or above the limit (protocol-flow, start-up).
        """
        self.type = 0
        at_hand = self.end - self.position
        if at_hand < 4:
            return False
        size = int.from_bytes(self.buffer[self.position : self.position + 4], "big")
        if size < 8 or size > limit:
            raise ProtocolViolation("invalid length of startup packet", detail=_signed(0, size))
        self.length = size
        self.body_start = self.position + 4
        self.body_stop = self.position + size
        return at_hand >= size

    def body(self) -> bytes:
        """Copy the body that `take`, `head` or `startup` found."""
        return bytes(self.buffer[self.body_start : self.body_stop])

    def pass_on(self) -> None:
        """Let the message that `run` stopped at join the run, with whatever of it has not arrived yet."""
        here = self.end - self.position
        if self.length <= here:
            self.position += self.length
        else:
            self.passing = self.length - here
            self.position = self.end

    def behead(self, count: int) -> None:
        """Let only the body behind its first `count` bytes join the run, which begins there.

        They must be here, and the run before them must be out.
        """
        self.mark = self.position + 5 + count
        self.pass_on()

    def drop(self) -> None:
        """Leave out the message that `take` found whole.  The run before it must be out."""
        self.position += self.length
        self.mark = self.position

    def take_rest(self) -> bytes:
        """Copy everything at hand and leave it out: it is no message.  The run before it must be out."""
        rest = bytes(self.buffer[self.position : self.end])
        self.position = self.end
        self.mark = self.end
        return rest

    def passed(self) -> None:
        """Say that the run is out: the next one begins here."""
        self.mark = self.position

    def keep(self) -> None:
        """Save what is not out yet in memory of our own; the caller's buffer is free again."""
        if self.mark == self.end:
            self.kept = EMPTY
        elif self.buffer is self.kept:
            if self.mark:
                del self.kept[: self.mark]
        else:
            self.kept = bytearray(memoryview(self.buffer)[self.mark : self.end])
        self.position -= self.mark
        self.end -= self.mark
        self.mark = 0
        self.buffer = self.kept

    def at_boundary(self) -> bool:
        """Say whether no part of a message is here or under way."""
        return self.passing == 0 and self.position == self.end


def _signed(kind: int, size: int) -> str:
    value = size - 0x1_0000_0000 if size >= 0x8000_0000 else size
    return f"The message of type {chr(kind)!r} announces {value} bytes." if kind else f"It announces {value} bytes."
