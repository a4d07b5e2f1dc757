"""Reads `survivors.txt`: the mutants that no test notices, each with its reason."""

from __future__ import annotations

from pathlib import Path

from tests.mutation.operators import Mutant
from tests.mutation.rules import paragraphs

FILE = Path(__file__).with_name("survivors.txt")

REASONS: dict[tuple[str, tuple[str, ...]], str] = {
    (path, tuple(diff)): reason for reason, path, *diff in paragraphs(FILE.read_text())
}
"""By module and diff, so that a reason outlives changes elsewhere in the module."""


def reason_for(mutant: Mutant) -> str:
    """Return the reason why a mutant survives; empty: nobody knows one."""
    return REASONS.get((mutant.path, mutant.diff), "")
