"""A campaign: which mutants are run, what became of them, and the report.

Results are kept in a file, one entry per mutant, and written after each run, so that a campaign that was stopped goes
on where it was.  A mutant that was noticed stays noticed until its module changes; one that survived is run again when
any test changes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from tests.mutation.operators import Mutant, mutants
from tests.mutation.running import KILLED, SURVIVED, TIMEOUT, Outcome
from tests.mutation.survivors import reason_for

COLUMNS = ("module", "mutants", KILLED, TIMEOUT, SURVIVED, "noticed")


def sample(modules: Mapping[str, str], count: int, seed: int) -> tuple[list[Mutant], int]:
    """Draw mutants, and say from how many.  A count of 0 takes all.

    Each mutant has a place in the draw by what it changes: so a larger sample holds the smaller, and a change elsewhere
    in its module changes nothing.
    """
    everything = [mutant for path, text in sorted(modules.items()) for mutant in mutants(path, text)]

    def place(mutant: Mutant) -> tuple[str, str]:
        return sha256(f"{seed} {mutant.path} {mutant.name} {mutant.diff}".encode()).hexdigest(), mutant.key

    return sorted(everything, key=place)[: count or None], len(everything)


class Results:
    """What became of mutants, by their keys, in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries: dict[str, dict[str, object]] = json.loads(file.read_text()) if file.exists() else {}

    def add(self, mutant: Mutant, outcome: Outcome, state: str) -> None:
        """Note an outcome, and the state of the tests that it is of."""
        self.entries[mutant.key] = {
            "mutant": str(mutant),
            "diff": list(mutant.diff),
            "state": state,
            **asdict(outcome),
        }
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(self.entries, indent=1))
        partial.replace(self.file)

    def of(self, mutant: Mutant) -> Outcome | None:
        """Return what is known of a mutant."""
        entry = self.entries.get(mutant.key)
        if entry is None:
            return None
        return Outcome(**{name: entry[name] for name in ("outcome", "test", "tests", "seconds")})  # type: ignore[arg-type]

    def to_run(self, chosen: Sequence[Mutant], state: str) -> list[Mutant]:
        """List those of which nothing is known that still holds."""

        def holds(mutant: Mutant) -> bool:
            known = self.of(mutant)
            return known is not None and (known.noticed or self.entries[mutant.key]["state"] == state)

        return [mutant for mutant in chosen if not holds(mutant)]


# -- the report --------------------------------------------------------------------------------------------------------


def report(title: str, chosen: Sequence[Mutant], results: Results) -> Iterator[str]:
    """Make the lines of the report, in Markdown: a table, and everything that survived with its reason."""
    known = [(mutant, outcome) for mutant in chosen if (outcome := results.of(mutant)) is not None]
    yield f"## {title}"
    yield ""
    if len(known) < len(chosen):
        yield f"{len(chosen) - len(known)} of {len(chosen)} have not been run."
        yield ""
    yield from table(_rows(known))
    survivors = [mutant for mutant, outcome in known if not outcome.noticed]
    if survivors:
        yield ""
        yield "Survivors:"
    for mutant in sorted(survivors, key=lambda mutant: (mutant.path, mutant.lines)):
        yield ""
        yield f"`{mutant.path}:{mutant.lines[0]}` ({mutant.name}): {reason_for(mutant) or 'NO REASON KNOWN'}"
        yield ""
        yield "```diff"
        yield from mutant.diff
        yield "```"


def _rows(known: Sequence[tuple[Mutant, Outcome]]) -> Iterator[tuple[str, ...]]:
    by_module: dict[str, Counter[str]] = {}
    for mutant, outcome in sorted(known, key=lambda pair: pair[0].path):
        by_module.setdefault(mutant.path.removeprefix("pgpooler/"), Counter())[outcome.outcome] += 1
    yield COLUMNS
    for module, counts in by_module.items():
        yield _row(module, counts)
    yield _row("all", sum(by_module.values(), Counter()))


def _row(name: str, counts: Counter[str]) -> tuple[str, ...]:
    total = counts.total()
    share = 100 * (total - counts[SURVIVED]) / total if total else 0
    return (name, str(total), *(str(counts[kind]) for kind in (KILLED, TIMEOUT, SURVIVED)), f"{share:.1f}%")


def table(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Align a table: names to the left, figures to the right."""
    lines = list(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for number, line in enumerate(lines):
        first, *rest = zip(line, widths, strict=True)
        yield "| " + " | ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]) + " |"
        if number == 0:
            yield "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
