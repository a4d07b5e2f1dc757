"""Finds the shortest script that still shows a deviation, by leaving steps out.

What breaks a rule of the grammar breaks it in any script, so that any step and any request may go.  A wrong answer
shows something only if the right answer is still the one that the script expects; so only steps may go on which no
later one rests, unless a direct server is there to say that it answers the shorter script as expected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from spec.codec import Instance
from spec.conformance.scripts import Ask, Script, Step
from spec.conformance.stage import EXPECTATIONS, Deviation, Performance
from spec.conversation import ENDS_A_CYCLE

MOST_SECONDS = 30.0
"""Time after which a script is short enough."""

Play = Callable[[Script], Performance]


def shrunk(script: Script, deviation: Deviation, play: Play, direct: Play | None = None) -> Script:
    """Return the shortest script found that shows the same deviation."""
    deadline = time.monotonic() + MOST_SECONDS
    best = replace(script, steps=script.steps[: deviation.step + 1])
    if best != script and not shows(best, deviation, play):
        best = script
    is_shorter = True
    while is_shorter:
        is_shorter = False
        for candidate in shorter(best, deviation, anything=direct is not None):
            if time.monotonic() > deadline:
                return best
            if shows(candidate, deviation, play) and (direct is None or direct(candidate).deviation is None):
                best, is_shorter = candidate, True
                break
    return best


def shows(script: Script, deviation: Deviation, play: Play) -> bool:
    """Whether a script shows this deviation."""
    return deviation.is_like(play(script).deviation)


def shorter(script: Script, deviation: Deviation, *, anything: bool) -> Iterator[Script]:
    """Yield the scripts that are one step, or one request, shorter."""
    breaks_a_rule = deviation.rule not in EXPECTATIONS
    for index, step in enumerate(script.steps):
        is_last = index == len(script.steps) - 1
        if breaks_a_rule or (not is_last and (anything or not step.is_given)):
            yield without(script, index)
    if breaks_a_rule:
        for index, step in enumerate(script.steps):
            if isinstance(step, Ask):
                for fewer in with_fewer_requests(step):
                    yield replace(script, steps=(*script.steps[:index], fewer, *script.steps[index + 1 :]))


def without(script: Script, index: int) -> Script:
    """Return the script without one of its steps."""
    return replace(script, steps=(*script.steps[:index], *script.steps[index + 1 :]))


def with_fewer_requests(step: Ask) -> Iterator[Step]:
    """Yield the step with one request less; heard is then as many ReadyForQuery as the others bring."""
    for index in range(len(step.requests)):
        if len(step.requests) > 1:
            requests = (*step.requests[:index], *step.requests[index + 1 :])
            cycles = sum(isinstance(request, Instance) and request.name in ENDS_A_CYCLE for request in requests)
            yield replace(step, requests=requests, answers=(cycles * ("ReadyForQuery",),))
