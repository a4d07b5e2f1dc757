"""`pgpooler demo`: try PgPooler without any set-up."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
from types import FrameType
from urllib.parse import quote

from pgpooler import __version__
from pgpooler.demo import checks, containers, scenario, tools
from pgpooler.demo.running import HOST, Demonstration
from pgpooler.errors import PgPoolerError

EXIT_OK = 0
EXIT_FAILED = 1
URL_VARIABLE = "PGPOOLER_TEST_POSTGRES"
"""Names the servers of the provider `url`, here as in the tests."""
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
QUESTION = "SELECT name FROM backend_id"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Teach a parser the options of the command."""
    parser.add_argument("--check", action="store_true", help="prove that it works, print a table, and end")
    parser.add_argument("--port", type=int, metavar="PORT", help="PgPooler's port (default: 6432, or a free one)")
    parser.add_argument("--provider", metavar="PROVIDER", help="where the servers come from (default: what is there)")
    parser.add_argument("--image", default=containers.DEFAULT_IMAGE, help="the image for containers")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(arguments: argparse.Namespace) -> int:
    """Run the demonstration until it is interrupted, or its checks; the exit status."""
    provider = arguments.provider
    if provider is None or provider == "url":
        provider = os.environ.get(URL_VARIABLE) or None
        if provider is None and arguments.provider is not None:
            print(f"pgpooler demo: set {URL_VARIABLE} to two URLs, separated by a space", file=sys.stderr)
            return EXIT_FAILED
    image = getattr(arguments, "image", containers.DEFAULT_IMAGE)
    previous = [(number, signal.signal(number, _interrupt)) for number in END_SIGNALS]
    demonstration = Demonstration()
    try:
        tools.import_psycopg()
        demonstration.start(provider=provider, image=image, port=arguments.port, say=_say)
        if arguments.check:
            return _check(demonstration, as_json=arguments.json)
        _introduce(demonstration, as_json=arguments.json)
        demonstration.wait()
    except PgPoolerError as error:
        print(f"pgpooler demo: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        _say("\nStopping.")
        return EXIT_FAILED if arguments.check else EXIT_OK
    finally:
        # From here on nothing may stop us from cleaning up.
        for number in END_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        demonstration.close()
        for number, handler in previous:
            signal.signal(number, handler)
    return EXIT_OK


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    """Tell a person what is going on; standard output is for what was asked for."""
    print(line, file=sys.stderr, flush=True)


def _check(demonstration: Demonstration, *, as_json: bool) -> int:
    """Run the checks and print what came out."""
    client = checks.Client(HOST, demonstration.port, demonstration.users)
    _say("Checking")
    results = list(checks.run(client))
    passed = all(check.passed for check in results)
    if as_json:
        print(json.dumps({"passed": passed, **_facts(demonstration), "checks": [check.values() for check in results]}))
    else:
        print(checks.table(results))
    return EXIT_OK if passed else EXIT_FAILED


def _facts(demonstration: Demonstration) -> dict[str, object]:
    """Where everything is, for a machine."""
    return {
        "host": HOST,
        "port": demonstration.port,
        "users": demonstration.users,
        "configuration": str(demonstration.configuration),
        "log": str(demonstration.log),
        "backends": [
            {
                "name": name,
                "host": server.host,
                "port": server.port,
                "version": server.version,
                "provider": server.provider,
                "databases": list(scenario.DATABASES[name]),
            }
            for name, server in (
                (scenario.PRIMARY, demonstration.primary),
                (scenario.REPLICA, demonstration.replica),
            )
        ],
    }


def _introduce(demonstration: Demonstration, *, as_json: bool) -> None:
    """Say where everything is and how to connect, in lines ready to paste."""
    if as_json:
        print(json.dumps(_facts(demonstration)), flush=True)
        return
    servers = ((scenario.PRIMARY, demonstration.primary), (scenario.REPLICA, demonstration.replica))
    rows = [
        (
            f"  {name}",
            f"{server.host}:{server.port}",
            f"PostgreSQL {server.version} ({server.provider})",
            "databases " + ", ".join(scenario.DATABASES[name]),
        )
        for name, server in servers
    ]
    cases = scenario.routing_cases(next(iter(demonstration.users)))
    shown = {(case.user, case.expected): case for case in cases}.values()
    commands = [
        (f"  {_psql_command(demonstration, case.user, case.database)}", f"# answers {case.expected}") for case in shown
    ]
    configuration = shlex.quote(str(demonstration.configuration))
    print(
        f"""
PgPooler {__version__} listens on {HOST}:{demonstration.port}, in front of two PostgreSQL servers:
{checks.aligned(rows)}

Connect, for example:
{checks.aligned(commands)}

See why a client goes where it goes:
  {sys.executable} -m pgpooler route --config {configuration} --user {shlex.quote(cases[0].user)} --database app

Its configuration is in {demonstration.directory} (reload after a change: kill -HUP {demonstration.process.pid}).
Its log is {demonstration.log}.
Ctrl-C stops everything and removes it.""",
        flush=True,
    )


def _psql_command(demonstration: Demonstration, user: str, database: str) -> str:
    """A command line that asks through PgPooler which server answers."""
    # A plain `psql` is shorter to read; the wheel's own serves where there is none.
    program = "psql" if shutil.which("psql") else str(tools.find("psql") or "psql")
    name, password = quote(user, safe=""), quote(demonstration.users[user], safe="")
    url = f"postgresql://{name}:{password}@{HOST}:{demonstration.port}/{database}"
    return f'{shlex.quote(program)} {shlex.quote(url)} -c "{QUESTION}"'
