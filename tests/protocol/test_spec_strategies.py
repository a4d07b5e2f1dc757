"""What spec.strategies and spec.mutators generate is what they say it is."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from spec import strategies
from spec.codec import Instance, decode, encode
from spec.messages import LATEST, Phase, Sender, Version
from spec.mutators import MUTATORS, Mutator, NearValid, Verdict, applicable, near_valid, spoilt, verdict

every_mutator = pytest.mark.parametrize("mutator", MUTATORS, ids=lambda mutator: mutator.name)


@given(sender=st.sampled_from(Sender), phase=st.sampled_from(Phase), version=strategies.versions(), data=st.data())
def test_valid_messages_are_well_formed(sender: Sender, phase: Phase, version: Version, data: st.DataObject) -> None:
    instance = data.draw(strategies.instances(sender, phase, version))
    assert verdict(encode(instance, version), sender, phase, version) is Verdict.WELL_FORMED


@given(instance=strategies.startup_packets())
def test_startup_packets_are_well_formed(instance: Instance) -> None:
    assert decode(encode(instance), Sender.FRONTEND, Phase.STARTUP) == instance


@given(instance=strategies.startup_messages())
def test_startup_messages_name_a_user_and_no_parameter_twice(instance: Instance) -> None:
    parameters = instance["parameters"]
    assert isinstance(parameters, tuple)
    names = [pair[0] for pair in parameters if isinstance(pair, tuple)]
    assert names.count(b"user") == 1
    assert len(set(names)) == len(names)


def is_generated(instances: SearchStrategy[Instance], name: str) -> bool:
    unshrunk = settings(phases=[hypothesis.Phase.generate], deadline=None, max_examples=2000)
    return find(instances, lambda instance: instance.name == name, settings=unshrunk).name == name


def test_every_message_of_a_direction_is_generated() -> None:
    for sender in Sender:
        for message in strategies.formats(sender):
            assert is_generated(strategies.instances(sender), message.name)


@given(data=st.binary(max_size=80), draw=st.data())
def test_chunks_make_up_the_whole_and_are_never_empty(data: bytes, draw: st.DataObject) -> None:
    chunks = draw.draw(strategies.chunks(data))
    assert b"".join(chunks) == data
    assert all(chunks)


def test_chunks_are_sometimes_single_bytes_and_sometimes_the_whole() -> None:
    data = b"0123456789"
    assert find(strategies.chunks(data), lambda chunks: len(chunks) == 10)
    assert find(strategies.chunks(data), lambda chunks: len(chunks) == 1)
    assert find(strategies.chunks(data), lambda chunks: len({len(chunk) for chunk in chunks}) > 2)


@every_mutator
def test_every_mutator_applies_to_something(mutator: Mutator) -> None:
    assert applicable(mutator)


def test_the_names_of_mutators_are_unique() -> None:
    assert len({mutator.name for mutator in MUTATORS}) == len(MUTATORS)


@every_mutator
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_what_a_mutator_makes_is_judged_as_it_says(mutator: Mutator, data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(applicable(mutator)))
    near: NearValid = data.draw(spoilt(mutator, message))
    assert verdict(near.data, near.sender, near.phase, near.version) is near.verdict is mutator.verdict


@given(near=near_valid(Sender.BACKEND))
def test_nearly_valid_messages_of_one_side_come_from_that_side(near: NearValid) -> None:
    assert near.sender is Sender.BACKEND
    assert near.version <= LATEST
