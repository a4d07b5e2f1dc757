"""Hypothesis strategies derived from `messages`: valid messages, nearly valid bytes, and ways to cut a stream.

What is generated is small by default (a few items, a few dozen bytes), because the shapes matter here and not the bulk;
bounds are reached where they are near, such as the lengths of cancel keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from spec.codec import Instance, encode
from spec.messages import LATEST, VERSIONS, Message, Phase, Sender, Version, in_force
from spec.types import Array, Bytes, Constant, Field, Group, Int, Item, Rest, Tag, Text, Until0, Value

MOST_BYTES = 40  # in a text, a value or a rest
MOST_ITEMS = 4  # in an array or a list

PROOF_PHASES = (Phase.PASSWORD, Phase.SASL_INITIAL, Phase.SASL, Phase.GSS)


def versions() -> SearchStrategy[Version]:
    """Return a strategy for the protocol versions described."""
    return st.sampled_from(VERSIONS)


def items(field: Field) -> SearchStrategy[Item]:
    """Return a strategy for the values of one field."""
    match field:
        case Constant():
            return st.none()
        case Int(_, least, most, usual):
            numbers = st.integers(least, most)
            return st.sampled_from(usual) | numbers if usual else numbers
        case Tag(choices, may_grow):
            known = st.sampled_from([bytes((choice,)) for choice in choices])
            return known | st.integers(1, 255).map(lambda byte: bytes((byte,))) if may_grow else known
        case Bytes(size):
            return st.binary(min_size=size, max_size=size)
        case Text(least):
            return texts(least)
        case Value():
            return st.none() | st.binary(max_size=MOST_BYTES)
        case Rest(least, most):
            return st.binary(min_size=least, max_size=min(most, least + MOST_BYTES)) | longest(least, most)
        case Group(fields):
            return st.tuples(*(items(member) for _, member in fields))
        case Array(member):
            return st.lists(items(member), max_size=MOST_ITEMS).map(tuple)
        case Until0(member, least):
            return st.lists(items(member), min_size=least, max_size=least + MOST_ITEMS).map(tuple)


def texts(least: int = 0) -> SearchStrategy[bytes]:
    """Return a strategy for texts: any bytes but zero, whatever the encoding."""
    return st.binary(min_size=least, max_size=least + MOST_BYTES).map(lambda data: data.replace(b"\0", b"?"))


def longest(least: int, most: int) -> SearchStrategy[Item]:
    """Return a strategy for the longest rest where that is short enough to try, else for the shortest."""
    return st.just(bytes(most if most <= 1_000 else least))


def instances_of(message: Message) -> SearchStrategy[Instance]:
    """Return a strategy for valid messages of one format."""
    fields = {name: items(field) for name, field in message.fields if not isinstance(field, Constant)}
    return st.fixed_dictionaries(fields).map(lambda values: Instance(message.sender, message.name, values))


def formats(sender: Sender, phase: Phase = Phase.SESSION, version: Version = LATEST) -> tuple[Message, ...]:
    """Return the formats of the messages `sender` may use in this phase."""
    return tuple(
        message for message in in_force(version) if message.sender is sender and message.phase in (None, phase)
    )


def instances(sender: Sender, phase: Phase = Phase.SESSION, version: Version = LATEST) -> SearchStrategy[Instance]:
    """Return a strategy for any valid message of one direction in one phase."""
    return st.one_of([instances_of(message) for message in formats(sender, phase, version)])


def streams(
    sender: Sender, phase: Phase = Phase.SESSION, version: Version = LATEST, least: int = 0, most: int = 8
) -> SearchStrategy[list[Instance]]:
    """Return a strategy for lists of valid messages of one direction; their order means nothing."""
    return st.lists(instances(sender, phase, version), min_size=least, max_size=most)


def encoded(stream: Sequence[Instance], version: Version = LATEST) -> bytes:
    """Return the bytes of several messages in a row."""
    return b"".join(encode(instance, version) for instance in stream)


@st.composite
def startup_messages(draw: DrawFn) -> Instance:
    """Draw a StartupMessage that a server may accept: it names a user, and no parameter twice."""
    parameters = draw(st.dictionaries(texts(least=1), texts(), max_size=MOST_ITEMS))
    parameters.pop(b"replication", None)
    parameters[b"user"] = draw(texts(least=1))
    pairs = draw(st.permutations(list(parameters.items())))
    minor = draw(st.sampled_from((0, 2)) | st.integers(0, 65_535))
    return Instance(Sender.FRONTEND, "StartupMessage", {"minor": minor, "parameters": tuple(pairs)})


def startup_packets(version: Version = LATEST) -> SearchStrategy[Instance]:
    """Return a strategy for every packet a connection may begin with."""
    others = [
        message for message in formats(Sender.FRONTEND, Phase.STARTUP, version) if message.name != "StartupMessage"
    ]
    return startup_messages() | st.one_of([instances_of(message) for message in others])


@st.composite
def chunks(draw: DrawFn, data: bytes) -> list[bytes]:
    """Draw a way in which `data` may arrive: pieces that are never empty, at the extremes one piece or single bytes."""
    if not data:
        return []
    style = draw(st.sampled_from(("whole", "single bytes", "cuts", "even")))
    if style == "whole":
        return [data]
    if style == "cuts":
        cuts = draw(st.sets(st.integers(1, len(data)), max_size=12))
        edges = sorted({0, len(data), *cuts})
        return [data[start:stop] for start, stop in itertools.pairwise(edges)]
    size = 1 if style == "single bytes" else draw(st.integers(1, len(data)))
    return [data[start : start + size] for start in range(0, len(data), size)]
