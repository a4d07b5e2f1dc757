"""The demonstration in containers: the files that compose.yaml needs, and the checks it runs.

python -m pgpooler.demo.compose write DIRECTORY      makes the files in compose/ again
python -m pgpooler.demo.compose check HOST PORT      runs the checks against a PgPooler that is already there
python -m pgpooler.demo.compose healthy HOST PORT    says by its exit status whether PgPooler answers
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pgpooler.demo import checks, ports, scenario
from pgpooler.demo.server import PostgresServer

POSTGRES_PORT = 5432
POOLER_PORT = 6432
NOTICE = "{} Made by `python -m pgpooler.demo.compose write compose`; change pgpooler/demo/scenario.py instead.\n"


def server(name: str) -> PostgresServer:
    """A server as the other containers see it: its service's name is its host name."""
    password = scenario.SUPERUSER_PASSWORD
    return PostgresServer(name, POSTGRES_PORT, superuser="postgres", password=password, version="", settings={})


def files() -> dict[str, str]:
    """The names and contents of all files."""
    primary, replica = server(scenario.PRIMARY), server(scenario.REPLICA)
    configuration = scenario.configuration_files(primary, replica, host="0.0.0.0", port=POOLER_PORT)  # noqa: S104
    scripts = {f"{name}.sql": scenario.script(name) for name in scenario.DATABASES}
    return {
        **{name: NOTICE.format("#") + text for name, text in configuration.items()},
        **{name: NOTICE.format("--") + text for name, text in scripts.items()},
    }


def check(host: str, port: int) -> int:
    """Run the checks against a running PgPooler and print a table; the exit status."""
    users = scenario.users(server(scenario.PRIMARY), server(scenario.REPLICA))
    results = list(checks.run(checks.Client(host, port, users)))
    print(checks.table(results))
    return 0 if all(result.passed for result in results) else 1


def main(arguments: Sequence[str]) -> int:
    """The exit status of one of the two commands."""
    match arguments:
        case ["write", directory]:
            for name, text in files().items():
                Path(directory, name).write_text(text, encoding="utf-8")
            return 0
        case ["check", host, port]:
            return check(host, int(port))
        case ["healthy", host, port]:
            return 0 if ports.is_answered(host, int(port)) else 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
