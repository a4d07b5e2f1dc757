"""Compare pgbench on PostgreSQL itself, through PgPooler, and through PgBouncer where it is installed.

Starts a PostgreSQL server and the poolers on free ports of the loopback interface, runs pgbench against each of them
in turn, several rounds, and prints for each the median of: transactions per second, average latency, and the
processor time of the pooler per query (user and system, supervisor and workers together).  The ratios are medians of
the ratios within a round, so that a machine that is busy for a while disturbs both sides alike.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.poolers import Login, Pool, PoolerFailed, Target, pgbouncer, pgbouncer_program, pgpooler
from loadtests.processes import processor_time
from pgpooler.demo import postgres, tools
from pgpooler.errors import PgPoolerError
from pgpooler.implementation import description

DIRECT, PGPOOLER, PGBOUNCER = "direct", "PgPooler", "PgBouncer"
DATABASE = "bench"
ERRORS_QUOTED = 2_000
"""Characters of pgbench's complaints that an error message quotes."""

EPILOG = """\
examples:
  python -m loadtests.pgbench                                    10 clients, SELECT 1, session mode
  python -m loadtests.pgbench --protocol prepared --workload accounts
  python -m loadtests.pgbench --mode transaction --clients 100 --pool-size 10
  python -m loadtests.pgbench --mode statement --clients 100 --pool-size 10 --protocol extended
  python -m loadtests.pgbench --rounds 5 --seconds 20 --json > result.json

In session mode every client needs a server connection of its own, so --pool-size must be at least --clients.
What a pool mode rules out (docs/explanation/pool-modes.md) is refused at once.
PgBouncer is used when it is found on PATH or in /usr/sbin (Debian: apt install pgbouncer).
"""


@dataclass(frozen=True)
class Workload:
    """What pgbench does: a script of ours or one of its own, and how many statements that is per transaction."""

    meaning: str
    statements: int
    script: str = ""
    builtin: str = ""


WORKLOADS = {
    "one": Workload("SELECT 1: nothing but the way there and back", 1, script="SELECT 1;\n"),
    "accounts": Workload("one account by its key (pgbench's select-only)", 1, builtin="select-only"),
    "transfer": Workload("seven statements in a transaction (pgbench's tpcb-like)", 7, builtin="tpcb-like"),
    "rows": Workload("20,000 rows of 200 bytes", 1, script="SELECT repeat('x', 200) FROM generate_series(1, 20000);\n"),
}


@dataclass(frozen=True)
class Result:
    """One run of pgbench: latency in milliseconds, processor time of the pooler in microseconds per statement."""

    transactions: int
    failed: int
    tps: float
    latency: float
    user: float | None = None
    system: float | None = None


def parse(output: str) -> Result:
    """Read what pgbench prints at its end.  Raises PoolerFailed where nothing was done, ValueError for other texts."""

    def figure(pattern: str, default: str | None = None) -> float:
        match = re.search(pattern, output, re.MULTILINE)
        if match is None and default is None:
            raise ValueError(f"pgbench printed nothing like {pattern!r}:\n{output}")
        return float(match[1] if match else default or 0)

    transactions = int(figure(r"^number of transactions actually processed: (\d+)"))
    if not transactions:
        raise PoolerFailed("pgbench had not finished a transaction when its time was over: give it more --seconds")
    return Result(
        transactions=transactions,
        failed=int(figure(r"^number of failed transactions: (\d+)", "0")),
        tps=figure(r"^tps = ([\d.]+)"),
        latency=figure(r"^latency average = ([\d.]+) ms"),
    )


class Bench:
    """pgbench with one workload, ready to be run against any target."""

    def __init__(self, options: argparse.Namespace, login: Login, directory: Path) -> None:
        self.program = str(tools.require("pgbench"))
        self.options = options
        self.login = login
        self.workload = WORKLOADS[options.workload]
        self.script = directory / "workload.sql"
        self.script.write_text(self.workload.script, encoding="utf-8")

    def command(self, target: Target) -> list[str]:
        """The command line for one run."""
        what = ["-f", str(self.script)] if self.workload.script else ["-b", self.workload.builtin]
        options = self.options
        return [
            *(self.program, "-n", "-M", options.protocol, "-c", str(options.clients), "-j", str(options.threads)),
            *("-T", str(options.seconds), *what),
            *("-h", target.host, "-p", str(target.port), "-U", self.login.user, DATABASE),
        ]

    def initialise(self, target: Target) -> None:
        """Make pgbench's tables, if the workload is one of its own."""
        if self.workload.builtin:
            place = ["-h", target.host, "-p", str(target.port), "-U", self.login.user, DATABASE]
            self._call([self.program, "-i", "-q", "-s", str(self.options.scale), *place], 600)

    def run(self, target: Target) -> Result:
        """Run once; the pooler's processor time is what it used meanwhile.  Raises PoolerFailed."""
        before = processor_time(target.processes())
        result = parse(self._call(self.command(target), self.options.seconds + 60))
        spent = processor_time(target.processes()) - before
        if target.process is None:
            return result
        statements = result.transactions * self.workload.statements
        return Result(
            result.transactions,
            result.failed,
            result.tps,
            result.latency,
            spent.user / statements,
            spent.system / statements,
        )

    def _call(self, command: list[str], timeout: float) -> str:
        environment = {
            **os.environ,
            "PGPASSWORD": self.login.password,
            "PGSSLMODE": "disable",
            "PGCONNECT_TIMEOUT": "30",
        }
        completed = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if completed.returncode:
            said = completed.stderr[:ERRORS_QUOTED]  # pgbench says the same for every client
            raise PoolerFailed(f"{' '.join(command)} ended with {completed.returncode}:\n{said}")
        return completed.stdout


def median(values: Sequence[float | None]) -> float | None:
    """The median of the values that are there; None if there are none."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def summarise(rounds: Sequence[dict[str, Result]]) -> dict[str, dict[str, float | None]]:
    """The medians of each target over all rounds, and of its ratios of transactions per second to the others'."""
    summary: dict[str, dict[str, float | None]] = {}
    for name in rounds[0]:
        figures = {
            key: median([getattr(each[name], key) for each in rounds]) for key in ("tps", "latency", "user", "system")
        }
        for other in (DIRECT, PGBOUNCER):
            if other in rounds[0] and other != name:
                ratios = [each[name].tps / each[other].tps for each in rounds if each[other].tps]
                figures[f"tps / {other}"] = median(ratios)
        figures["failed"] = sum(each[name].failed for each in rounds)
        summary[name] = figures
    return summary


ROWS = (
    ("tps", "transactions/s", "{:,.0f}"),
    ("latency", "latency average, ms", "{:.3f}"),
    ("user", "pooler CPU user, us/query", "{:.2f}"),
    ("system", "pooler CPU system, us/query", "{:.2f}"),
    (f"tps / {DIRECT}", f"transactions/s against {DIRECT}", "{:.2f}"),
    (f"tps / {PGBOUNCER}", f"transactions/s against {PGBOUNCER}", "{:.2f}"),
    ("failed", "failed transactions, all rounds", "{:.0f}"),
)


def table(summary: dict[str, dict[str, float | None]]) -> str:
    """The summary for people: one column per target."""
    lines = [f"{'':34}" + "".join(f"{name:>12}" for name in summary)]
    for key, meaning, form in ROWS:
        values = [figures.get(key) for figures in summary.values()]
        if any(value is not None for value in values):
            lines.append(
                f"{meaning:34}" + "".join(f"{'-' if each is None else form.format(each):>12}" for each in values)
            )
    return "\n".join(lines)


def measure(bench: Bench, targets: Sequence[Target], rounds: int) -> list[dict[str, Result]]:
    """Run every target once per round; every second round runs backwards, so that none is always the first."""
    results = []
    for number in range(rounds):
        order = targets if number % 2 == 0 else targets[::-1]
        found = {}
        for target in order:
            found[target.name] = bench.run(target)
            print(f"round {number + 1}/{rounds}  {target.name:10} {found[target.name].tps:12,.0f}/s", file=sys.stderr)
        results.append({target.name: found[target.name] for target in targets})
    return results


@contextlib.contextmanager
def database(options: argparse.Namespace, login: Login) -> Iterator[Target]:
    """A server with the role and the database of the measurement, both removed again."""
    provider = postgres.choose(options.postgres)
    print(f"PostgreSQL from {provider}", file=sys.stderr)
    with provider.start(settings={"max_connections": str(options.pool_size * 2 + options.clients + 20)}) as server:
        server.execute(f"CREATE ROLE {login.user} LOGIN PASSWORD '{login.password}'")
        try:
            server.execute(f"CREATE DATABASE {DATABASE} OWNER {login.user}")
            yield Target(DIRECT, server.host, server.port)
        finally:
            server.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)", f"DROP ROLE {login.user}")


def compare(options: argparse.Namespace) -> dict[str, object]:
    """Do it all, and return everything that was found, ready for JSON."""
    login = Login(f"bench_{secrets.token_hex(4)}", secrets.token_hex(12))
    pools = {DATABASE: Pool(options.mode, options.pool_size)}
    limit = options.clients + 100
    program = None if options.without_pgbouncer else pgbouncer_program()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgpooler-load-")))
        direct = stack.enter_context(database(options, login))
        bench = Bench(options, login, directory)
        bench.initialise(direct)
        targets = [direct, stack.enter_context(pgpooler(direct, login, pools, limit))]
        if program:
            targets.append(stack.enter_context(pgbouncer(program, direct, login, pools, limit)))
        elif not options.without_pgbouncer:
            print("PgBouncer is not installed: two columns instead of three", file=sys.stderr)
        rounds = measure(bench, targets, options.rounds)
    return {
        "machine": {
            "system": platform.platform(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "implementation": description(),
        },
        "options": {key: value for key, value in vars(options).items() if key != "postgres"},
        "rounds": [{name: asdict(result) for name, result in each.items()} for each in rounds],
        "summary": summarise(rounds),
    }


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.pgbench",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    meanings = "; ".join(f"{name}: {workload.meaning}" for name, workload in WORKLOADS.items())
    parser.add_argument("--workload", choices=WORKLOADS, default="one", help=f"{meanings} (default: one)")
    parser.add_argument("--protocol", choices=("simple", "extended", "prepared"), default="simple", help="pgbench -M")
    parser.add_argument("--mode", choices=("session", "transaction", "statement"), default="session", help="pool mode")
    parser.add_argument("--clients", type=int, default=10, help="connections of pgbench (default: 10)")
    parser.add_argument("--threads", type=int, default=1, help="threads of pgbench (default: 1)")
    parser.add_argument(
        "--pool-size", type=int, help="server connections (default: clients, but 10 at most unless session)"
    )
    parser.add_argument("--seconds", type=int, default=5, help="length of one run (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each target (default: 3)")
    parser.add_argument(
        "--scale", type=int, default=1, help="size of pgbench's tables, 100,000 accounts each (default: 1)"
    )
    parser.add_argument(
        "--postgres",
        default=os.environ.get("PGPOOLER_TEST_POSTGRES"),
        help="embedded, system, testcontainers or a URL (default: $PGPOOLER_TEST_POSTGRES, else what is there)",
    )
    parser.add_argument("--without-pgbouncer", action="store_true", help="leave PgBouncer out even if it is installed")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON instead of a table")
    return parser


def impossible(options: argparse.Namespace) -> str:
    """Say what the pool mode rules out among these options; empty if nothing."""
    if options.mode == "session" and options.pool_size < options.clients:
        return "in session mode --pool-size must be at least --clients, else clients wait for ever"
    if options.mode != "session" and options.protocol == "prepared":
        return f"in {options.mode} mode prepared statements end with the lease: not with --protocol prepared"
    if options.mode == "statement" and options.workload == "transfer":
        return "statement mode refuses transaction blocks: not with --workload transfer"
    return ""


def main(command_line: Sequence[str] | None = None) -> int:
    """Compare and print; 0 if no transaction failed, 1 if one did, 2 if something could not be started."""
    parser = arguments()
    options = parser.parse_args(command_line)
    if options.pool_size is None:
        options.pool_size = options.clients if options.mode == "session" else min(options.clients, 10)
    if reason := impossible(options):
        parser.error(reason)
    try:
        found = compare(options)
    except (PgPoolerError, PoolerFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    summary = found["summary"]
    assert isinstance(summary, dict)
    print(json.dumps(found, indent=2) if options.json else table(summary))
    return 1 if any(figures["failed"] for figures in summary.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
