"""Mutants that no test notices, each with its reason.

An entry is known by its module and by the two lines of the diff, so that it outlives changes elsewhere in the module.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutation.operators import Mutant


@dataclass(frozen=True)
class Survivor:
    """Why no test can, or should, notice that `before` became `after`."""

    path: str
    before: str
    after: str
    reason: str


SURVIVORS: tuple[Survivor, ...] = ()


def reason_for(mutant: Mutant) -> str:
    """Return the reason why a mutant survives; empty: nobody knows one."""
    key = (mutant.path, *(" ".join(line[1:].strip() for line in mutant.diff if line[0] == sign) for sign in "-+"))
    return next((known.reason for known in SURVIVORS if (known.path, known.before, known.after) == key), "")
