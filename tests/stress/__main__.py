"""Tagged stress: `python -m tests.stress`, or `tox run -e stress`.

200 clients on ten server connections of a real PostgreSQL do everything at once, and each looks at every byte it gets.
Exit code 0: nobody met anything of somebody else, nothing is left, and memory does not grow; 1: not so.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.integration import servers
from tests.integration.data_planes import RunningDataPlane
from tests.stress.course import POOL, Course, run

SECONDS = float(os.environ.get("PGPOOLER_STRESS_SECONDS", "300"))
SEED = int(os.environ.get("PGPOOLER_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
MODES = ("transaction", "statement")
MOST_GROWTH = 1.1
"""How much more memory the data plane may hold in the end than when it was warm."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each mode (default %(default)g)")
    parser.add_argument("--clients", type=int, default=200, help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of all plans (default: a new one)")
    parser.add_argument("--mode", choices=MODES, action="append", help="(default: one after the other)")
    return parser.parse_args()


def course(options: argparse.Namespace, mode: str, started: servers.TwoServers, directory: Path) -> Course:
    """One course in a database of its own."""
    database = f"stress_{mode}"
    started.primary.execute(f"CREATE DATABASE {database}")
    defaults = {"pool_mode": mode, "pool_size": POOL}
    data_plane = RunningDataPlane(started.configuration(routing={"defaults": defaults}), directory)
    try:
        return run(
            data_plane,
            started.primary,
            database,
            clients=options.clients,
            seconds=options.seconds,
            seed=options.seed,
            transactions=mode == "transaction",
        )
    finally:
        data_plane.stop()
        started.primary.execute(f"DROP DATABASE {database} WITH (FORCE)")


def main() -> int:
    options = arguments()
    print(f"seed {options.seed} (PGPOOLER_TEST_SEED repeats the plans)", flush=True)
    failed = False
    with servers.start_two_servers() as started, tempfile.TemporaryDirectory() as directory:
        for mode in options.mode or MODES:
            done = course(options, mode, started, Path(directory))
            print(f"{mode} mode: {done}", *done.findings.wrong[:20], sep="\n  ", flush=True)
            failed |= bool(done.findings.wrong) or done.growth > MOST_GROWTH
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
