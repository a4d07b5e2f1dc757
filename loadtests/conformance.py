"""Run the conformance suite of spec/ against PostgreSQL, PgPooler and PgBouncer, and print the tables as Markdown.

Starts a PostgreSQL server and the poolers on free ports of the loopback interface, plays every script of the suite
against each of them, and prints one line for each theme: how many scripts conform, deviate, and are not offered.  Below
stand the scripts that deviate.  These are the tables of docs/reference/conformance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from loadtests.poolers import Login, Pool, PoolerFailed, Target, pgbouncer, pgbouncer_program, pgpooler
from pgpooler import __version__
from pgpooler.demo import postgres
from pgpooler.errors import PgPoolerError
from spec.conformance.report import exit_status
from spec.conformance.suite import Outcome, Result, Suite
from spec.conformance.target import target
from spec.conformance.themes import THEMES

POSTGRESQL, PGPOOLER, PGBOUNCER = "PostgreSQL", "PgPooler", "PgBouncer"
MODES = ("session", "transaction", "statement")
DATABASE = "postgres"
POOL_SIZE = 10
"""Server connections: more than the sessions that a script has at once."""
SHOWN = (Result.CONFORMS, Result.DEVIATES, Result.NOT_OFFERED)

Examined = dict[str, list[Outcome]]
"""What came of the suite, by what was examined."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.conformance", description=__doc__)
    parser.add_argument(
        "--poolers", default=f"{PGPOOLER},{PGBOUNCER}", help="separated by commas (default: %(default)s)"
    )
    parser.add_argument("--modes", default=",".join(MODES), help="pool modes, separated by commas (default: all three)")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds of silence that count as hanging")
    parser.add_argument(
        "--postgres",
        default=os.environ.get("PGPOOLER_TEST_POSTGRES"),
        help="embedded, system, testcontainers or a URL (default: $PGPOOLER_TEST_POSTGRES, else what is there)",
    )
    return parser


@contextlib.contextmanager
def running(pooler: str, server: Target, login: Login, mode: str) -> Iterator[Target]:
    """One of the poolers in front of a server."""
    pools = {DATABASE: Pool(mode, POOL_SIZE)}
    if pooler == PGPOOLER:
        with pgpooler(server, login, pools, 100) as started:
            yield started
        return
    program = pgbouncer_program()
    if program is None:
        raise PoolerFailed("PgBouncer is not installed (Debian: apt install pgbouncer)")
    with pgbouncer(program, server, login, pools, 100) as started:
        yield started


def version_of(pooler: str) -> str:
    """Name and version of a pooler."""
    if pooler == PGPOOLER:
        return f"{pooler} {__version__}"
    program = pgbouncer_program()
    if program is None:
        return pooler
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return printed.splitlines()[0]


def examine(address: Target, login: Login, patience: float) -> list[Outcome]:
    """What came of every script."""
    print(f"{address.name} at {address.host}:{address.port}", file=sys.stderr)
    return list(Suite(target(address.url(login, DATABASE), patience)).run(THEMES.values()))


def table(examined: Examined) -> list[str]:
    """A Markdown table: for each theme, how many scripts conform, deviate, and are not offered."""
    lines = [
        f"| theme | scripts | {' | '.join(examined)} |",
        f"|---|---|{'---|' * len(examined)}",
    ]
    for name in (*THEMES, ""):
        cells = []
        for outcomes in examined.values():
            counts = Counter(outcome.result for outcome in outcomes if name in ("", outcome.theme))
            cells.append(" / ".join(str(counts[result]) for result in SHOWN))
        number = sum(len(theme.scripts) for theme in THEMES.values() if name in ("", theme.name))
        lines.append(f"| {name or 'all'} | {number} | {' | '.join(cells)} |")
    return lines


def deviations(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    """The scripts that deviate, each with what was heard."""
    lines = [f"{name}:", ""]
    for outcome in outcomes:
        if outcome.deviation is not None:
            heard = ", ".join(outcome.deviation.heard[-3:]) or "nothing"
            lines.append(f"- {outcome.theme}: {outcome.script.name} (`{outcome.deviation.rule}`; heard: {heard})")
        elif outcome.result is Result.COULD_NOT_RUN:
            lines.append(f"- {outcome.theme}: {outcome.script.name} could not run: {outcome.reason}")
    return lines if len(lines) > 2 else [f"{name}: none"]


def main() -> int:
    """Start everything, examine it, print the tables; 0 unless something could not be started or examined."""
    options = arguments().parse_args()
    examined: Examined = {}
    try:
        with postgres.choose(options.postgres).start(password="postgres") as server:  # noqa: S106  on loopback alone
            login = Login(server.superuser, server.password)
            direct = Target(POSTGRESQL, server.host, server.port)
            examined[f"{POSTGRESQL} {server.version.split()[0]}"] = examine(direct, login, options.patience)
            for pooler in filter(None, options.poolers.split(",")):
                for mode in options.modes.split(","):
                    with running(pooler, direct, login, mode) as started:
                        examined[f"{version_of(pooler)}, {mode}"] = examine(started, login, options.patience)
    except (PoolerFailed, PgPoolerError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join([f"{datetime.date.today()}. Conform / deviate / not offered:", "", *table(examined)]))
    for name, outcomes in examined.items():
        print("\n".join(["", *deviations(name, outcomes)]))
    return 2 if any(exit_status(outcomes) == 2 for outcomes in examined.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
