"""A headless run of Locust: starts PostgreSQL and PgPooler, lets users of each pool mode work, prints Locust's report.

Ends with 0 if nothing failed and every promise of the pool mode was kept, 1 if not, 2 if something did not start.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.poolers import Login, Pool, PoolerFailed, Target, pgpooler
from pgpooler.demo import postgres
from pgpooler.errors import PgPoolerError

MODES = ("session", "transaction", "statement")
LOCUSTFILE = Path(__file__).with_name("locustfile.py")

EPILOG = """\
examples:
  python -m loadtests                                   20 users for 20 seconds, spread over the three pool modes
  python -m loadtests --users 200 --pool-size 20 --run-time 5m
  python -m loadtests --modes transaction               users of this class alone
"""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--modes", default=",".join(MODES), help="pool modes, separated by commas (default: all three)")
    parser.add_argument(
        "--users", type=int, default=20, help="users at the same time, of all modes together (default: 20)"
    )
    parser.add_argument("--pool-size", type=int, default=10, help="server connections of each mode (default: 10)")
    parser.add_argument("--run-time", default="20s", help="how long, such as 30s or 5m (default: 20s)")
    parser.add_argument(
        "--postgres",
        default=os.environ.get("PGPOOLER_TEST_POSTGRES"),
        help="embedded, system, testcontainers or a URL (default: $PGPOOLER_TEST_POSTGRES, else what is there)",
    )
    return parser


def run(options: argparse.Namespace, modes: Sequence[str]) -> int:
    """Start everything, run Locust as a process of its own (it replaces the socket module), stop everything."""
    login = Login(f"load_{secrets.token_hex(4)}", secrets.token_hex(12))
    pools = {f"{login.user}_{mode}": Pool(mode, options.pool_size) for mode in modes}
    provider = postgres.choose(options.postgres)
    print(f"PostgreSQL from {provider}", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        connections = options.pool_size * len(modes) + 20
        server = stack.enter_context(provider.start(settings={"max_connections": str(connections)}))
        server.execute(f"CREATE ROLE {login.user} LOGIN PASSWORD '{login.password}'")
        stack.callback(server.execute, f"DROP ROLE {login.user}")
        for database in pools:
            server.execute(f"CREATE DATABASE {database} OWNER {login.user}")
            stack.callback(server.execute, f"DROP DATABASE {database} WITH (FORCE)")
        direct = Target("direct", server.host, server.port)
        target = stack.enter_context(pgpooler(direct, login, pools, options.users * 2 + 20))
        urls = {f"PGPOOLER_LOAD_{pool.mode.upper()}": target.url(login, database) for database, pool in pools.items()}
        return locust(options, urls)


def locust(options: argparse.Namespace, urls: dict[str, str]) -> int:
    """Run Locust with these URLs and return its exit code: 1 if any request failed."""
    command = [
        *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"),
        *("--users", str(options.users), "--spawn-rate", str(options.users), "--run-time", options.run_time),
        *("--stop-timeout", "20", "--exit-code-on-error", "1"),
    ]
    return subprocess.run(command, env={**os.environ, **urls}, check=False).returncode


def main(command_line: Sequence[str] | None = None) -> int:
    """Run and report."""
    parser = arguments()
    options = parser.parse_args(command_line)
    modes = options.modes.split(",")
    unknown = set(modes) - set(MODES)
    if unknown:
        parser.error(f"unknown pool mode: {', '.join(sorted(unknown))}")
    try:
        return run(options, modes)
    except (PgPoolerError, PoolerFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
