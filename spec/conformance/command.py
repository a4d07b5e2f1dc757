"""The command `conformance`: examines any endpoint that speaks the protocol."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from spec.conformance import report
from spec.conformance.suite import Outcome, Result, Suite
from spec.conformance.target import PATIENCE, Target, Unusable, target
from spec.conformance.themes import THEMES

CONFORMS, DEVIATES, COULD_NOT_RUN = 0, 1, 2

DESCRIPTION = """\
Examine any endpoint that speaks the PostgreSQL protocol: PostgreSQL itself, or a pooler in front of it.

Scripts, grouped in themes, are played over connections of their own. Every byte is judged by the grammar in spec/,
and every script says what else the answer must be; each cites the place in PostgreSQL's manual. The result of a
script is one of
  conforms       the grammar and the stated answers hold
  deviates       they do not; the report shows the shortest script that was found to show it
  not offered    the target refuses the feature in so many words; never counted as conforming
  could not run  the script could not be prepared, for example because the user may not create a table
"""

EPILOG = """\
The target's database must be one in which the user may create tables: the suite makes tables, statements, channels
and roles of no names but its own (conformance_ and ten random digits) and drops them. Give the user of an ordinary
application; no superuser is needed.

examples:
  python -m spec conformance --target postgres://app:secret@127.0.0.1:6432/app
  python -m spec conformance --target postgres://app:secret@127.0.0.1:6432/app --theme copy --theme cancel
  python -m spec conformance --target postgres://app:secret@pooler/app --direct postgres://app:secret@server/app

themes:
{themes}

exit status: 0 the target conforms, 1 it deviates, 2 it, or a script, could not be run
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser about this command."""
    width = max(map(len, THEMES))
    themes = "\n".join(f"  {theme.name.ljust(width)}  {theme.summary}" for theme in THEMES.values())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    parser.epilog = EPILOG.format(themes=themes)
    parser.add_argument(
        "--target", required=True, metavar="URI", help="postgres://user:password@host:port/database (or PGPASSWORD)"
    )
    parser.add_argument(
        "--theme", action="append", choices=list(THEMES), metavar="NAME", help="only this theme; may be repeated"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results for machines to FILE too (-: only that)")
    parser.add_argument(
        "--direct",
        metavar="URI",
        help="the server behind the target: scripts are played there too, and what the target answers must be the same",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help="silence after which the target counts as hanging (default: %(default)g)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    try:
        examined = target(options.target, options.patience)
        direct = target(options.direct, options.patience) if options.direct else None
    except Unusable as problem:
        print(f"conformance: {problem}", file=sys.stderr)
        return COULD_NOT_RUN
    progress = Progress()
    suite = Suite(examined, direct, progress)
    if problem_text := suite.problem():
        print(f"conformance: nothing could be examined: {problem_text}", file=sys.stderr)
        return COULD_NOT_RUN
    themes = [theme for theme in THEMES.values() if not options.theme or theme.name in options.theme]
    progress.total = sum(len(theme.scripts) for theme in themes)
    outcomes = []
    for outcome in suite.run(themes):
        outcomes.append(outcome)
        progress.count(outcome)
    result = report.as_json(str(examined), str(direct) if direct else None, themes, outcomes)
    publish(options, examined, result, [*report.table(themes, outcomes), *report.details(outcomes)])
    for name in suite.left:
        print(f"conformance: the table {name} could not be dropped", file=sys.stderr)
    return report.exit_status(outcomes)


def publish(options: argparse.Namespace, examined: Target, result: dict[str, object], lines: list[str]) -> None:
    """Write the results to where they are wanted."""
    if options.json != "-":
        print("\n".join([f"Conformance of {examined}", "", *lines]))
    if options.json == "-":
        print(json.dumps(result, indent=1))
    elif options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


class Progress:
    """Says on standard error how far things are, whenever two seconds have passed without a word."""

    INTERVAL = 2.0

    def __init__(self) -> None:
        self.total = 0
        self.finished = 0
        self.deviating = 0
        self._last = time.monotonic()

    def __call__(self, doing: str) -> None:
        """Note what is going on now."""
        now = time.monotonic()
        if now - self._last >= self.INTERVAL:
            self._last = now
            words = f"{self.finished} of {self.total} scripts, {self.deviating} deviate; {doing}"
            print(f"conformance: {words}", file=sys.stderr, flush=True)

    def count(self, outcome: Outcome) -> None:
        """Note that a script is over."""
        self.finished += 1
        self.deviating += outcome.result is Result.DEVIATES


def main(arguments: list[str] | None = None) -> int:
    """Run the command by itself."""
    parser = argparse.ArgumentParser(prog="python -m spec conformance")
    add_arguments(parser)
    return run(parser.parse_args(arguments))
