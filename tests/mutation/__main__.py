"""Mutation testing of the protocol and of the rules of pooling: `python -m tests.mutation`, or `tox run -e mutation`.

Exit code 0: enough of the sample was noticed, every rule was, and every survivor has a reason; 1: not so; 2: the tests
fail on what is not mutated.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutation import rules
from tests.mutation.campaign import Results, report, sample
from tests.mutation.operators import Mutant
from tests.mutation.running import AT_LEAST, Outcome, preload, run_all, survey
from tests.mutation.selection import TestMap, modules, state_of_tests
from tests.mutation.survivors import reason_for

SAMPLE = 300
SEED = 20_261_127
ENOUGH = 0.9  # of the sample


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutants drawn, 0: all (default %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the draw (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default: processors)")
    parser.add_argument("--results", type=Path, default=Path(".mutation/results.json"), help="(default %(default)s)")
    parser.add_argument("--report", type=Path, help="write the report to this file, too")
    parser.add_argument("--patience", type=float, default=AT_LEAST, help="seconds for a test (default %(default)s)")
    parser.add_argument("--only", default="", help="only mutants whose description contains this")
    parser.add_argument("--again", action="store_true", help="run again what is known already")
    parser.add_argument("--list", action="store_true", help="only show what would be run")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    sources = modules()
    drawn, population = sample(sources, options.sample, options.seed)
    chosen = [mutant for mutant in drawn if options.only in str(mutant)]
    broken_rules = [mutant for mutant in rules.mutants(sources) if options.only in str(mutant)]
    everything = [*broken_rules, *chosen]
    if options.list:
        for mutant in everything:
            print(mutant, *mutant.diff, sep="\n    ")
        return 0
    options.results.parent.mkdir(parents=True, exist_ok=True)
    results = Results(options.results)
    tests = the_map(options.results.with_suffix(".map.json"))
    if tests.failed:
        print("These tests fail on what is not mutated:", *tests.failed, sep="\n  ")
        return 2
    todo = everything if options.again else results.to_run(everything, tests.state)
    print(f"{len(drawn)} of {population} mutants drawn, {len(broken_rules)} rules; {len(todo)} to run", flush=True)
    run(run_all(todo, tests, options.jobs, options.patience), len(todo), results, tests.state)
    lines = [*report("The rules", broken_rules, results), "", *report("The sample", chosen, results)]
    print("", *lines, sep="\n")
    if options.report:
        options.report.write_text("\n".join([*head(options, population), *lines, ""]))
    return verdict(broken_rules, chosen, results)


def head(options: argparse.Namespace, population: int) -> tuple[str, ...]:
    """Begin the page that is written."""
    return (
        "# Mutation testing: the latest result",
        "",
        "What this is: [mutation testing](../explanation/mutation-testing.md). Written by",
        f"`python -m tests.mutation --sample {options.sample} --seed {options.seed} --report FILE`.",
        f"{population} mutants can be made; `noticed` are those that were killed or ran out of time.",
        "",
    )


def the_map(file: Path) -> TestMap:
    """Return which tests run which lines, finding it out unless it is known."""
    known = TestMap.load(file)
    if known is None or known.state != state_of_tests():
        print("Running all tests on what is not mutated, to see what each of them runs", flush=True)
        known = survey()
        known.save(file)
    return known


def run(runs: Iterator[tuple[Mutant, Outcome]], count: int, results: Results, state: str) -> None:
    """Show and keep what becomes of each mutant."""
    began = time.monotonic()
    for number, (mutant, outcome) in enumerate(runs, 1):
        results.add(mutant, outcome, state)
        spent = time.monotonic() - began
        print(f"{number}/{count} {spent:6.0f}s {outcome.outcome:8} {mutant} {outcome.test}", flush=True)
        if not outcome.noticed:
            print(*mutant.diff, sep="\n", flush=True)


def verdict(broken_rules: Sequence[Mutant], chosen: Sequence[Mutant], results: Results) -> int:
    """Say whether that is good enough."""
    unnoticed = [mutant for mutant in chosen if (known := results.of(mutant)) is None or not known.noticed]
    unbroken = [mutant for mutant in broken_rules if (known := results.of(mutant)) is None or not known.noticed]
    unexplained = [mutant for mutant in unnoticed if not reason_for(mutant)]
    for mutant in unbroken:
        print(f"No test notices that this rule is broken: {mutant}")
    for mutant in unexplained:
        print(f"No test notices this, and no reason is known: {mutant}")
    enough = len(unnoticed) <= (1 - ENOUGH) * len(chosen)
    return 0 if enough and not unbroken and not unexplained else 1


if __name__ == "__main__":
    preload()
    sys.exit(main())
