"""The attributes that SCRAM messages consist of: `name=value`, between commas (RFC 5802 section 7).

Every function raises Malformed.
"""

from __future__ import annotations

VALUE_LIMIT = 1024  # bytes in one attribute; PostgreSQL's limit for a whole message of a client
ATTRIBUTES = frozenset(b"anmrcsipve")  # the letters RFC 5802 section 5.1 gives a meaning: no extension may use them


class Malformed(Exception):
    """A message breaks the grammar; each role tells its peer in its own way."""

    def sentence(self) -> str:
        """Write the complaint as PostgreSQL writes a detail."""
        text = str(self)
        return f"{text[0].upper()}{text[1:]}."


def take(attributes: list[bytes], name: str) -> bytes:
    """Remove the first attribute, which must be this one, and return its value."""
    if not attributes:
        raise Malformed(f'attribute "{name}" is missing')
    attribute = attributes.pop(0)
    if not attribute.startswith(name.encode("ascii") + b"="):
        raise Malformed(f'expected attribute "{name}" but found {quoted(attribute)}')
    if len(attribute) - 2 > VALUE_LIMIT:
        raise Malformed(f'the value of attribute "{name}" has {len(attribute) - 2} bytes, more than {VALUE_LIMIT}')
    return attribute[2:]


def check_extensions(attributes: list[bytes]) -> None:
    """What follows the known attributes: optional extensions are ignored, as RFC 5802 section 5.1 wants it."""
    for attribute in attributes:
        if not attribute[:1].isalpha() or attribute[1:2] != b"=" or attribute[0] in ATTRIBUTES:
            raise Malformed(f"unexpected attribute {quoted(attribute)}")


def check_no_zero(payload: bytes) -> None:
    """Refuse a zero byte, at which a reader in C would stop."""
    if b"\0" in payload:
        raise Malformed("the message contains a zero byte")


def quoted(raw: bytes) -> str:
    """A peer's bytes for a message of ours: printable, and not long."""
    text = raw[:40].decode("ascii", "backslashreplace")
    return '"' + "".join(character if character.isprintable() else "?" for character in text) + '"'
