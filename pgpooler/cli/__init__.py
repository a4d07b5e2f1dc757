"""The command `pgpooler`: run, check, route, demo, version.

Exit statuses are the same everywhere: 0 done, 1 failed, 2 wrong usage or a wrong configuration.  What was asked for
goes to standard output, everything else to standard error; `--json` prints one JSON object for a machine.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from pgpooler import __version__
from pgpooler.cli import commands, texts
from pgpooler.cli.commands import EXIT_FAILED, EXIT_USAGE

PROVIDERS: Final = ("url", "embedded", "system", "testcontainers")


class Command(NamedTuple):
    """One command: its function, one line for the list of commands, the text of its help, its options."""

    function: Callable[[argparse.Namespace], int]
    summary: str
    help: str
    options: tuple[Option, ...]


class Option(NamedTuple):
    """One option: its names and what argparse is told about it."""

    names: tuple[str, ...]
    settings: dict[str, Any]


def option(*names: str, **settings: Any) -> Option:
    """An option as a value."""
    return Option(names, settings)


def port_number(text: str) -> int:
    """The port that `text` names; ArgumentTypeError when it is none."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 1 to 65535 is needed")
    return int(text)


CONFIG: Final = option(
    "-c", "--config", metavar="PATH", help="the main configuration file (default: $CONFIG_PATH, or pgpooler.yaml)"
)
JSON: Final = option("--json", action="store_true", help="print one JSON object")

COMMANDS: Final = {
    "run": Command(commands.run, "run PgPooler in the foreground", texts.RUN, (CONFIG,)),
    "check": Command(commands.check, "read the configuration, say what is wrong with it", texts.CHECK, (CONFIG, JSON)),
    "route": Command(
        commands.route,
        "say where a client would go, and why",
        texts.ROUTE,
        (
            CONFIG,
            option("-U", "--user", metavar="USER", required=True, help="the user the client logs in as"),
            option("-d", "--database", metavar="DATABASE", help="the database (default: the user's name)"),
            JSON,
        ),
    ),
    "demo": Command(
        commands.demo,
        "try it: two PostgreSQL servers with PgPooler in front",
        texts.DEMO,
        (
            option("--check", action="store_true", help="prove that it works, print a table, and end"),
            option("--port", type=port_number, metavar="PORT", help="PgPooler's port (default: 6432, or a free one)"),
            option("--provider", choices=PROVIDERS, help="where the servers come from (default: what is there)"),
            option("--image", default=argparse.SUPPRESS, help="the image for containers (default: postgres:17)"),
            JSON,
        ),
    ),
    "version": Command(commands.version, "print the versions for a bug report", texts.VERSION, (JSON,)),
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors say what to do next."""

    def error(self, message: str) -> NoReturn:
        """Print the error and where to find help, and exit."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\nTry `{self.prog} --help`.\n")


def build_parser() -> Parser:
    """The parser of the whole command line; each command's function becomes the argument `function`."""
    parser = Parser(
        prog="pgpooler",
        description=texts.OVERVIEW,
        epilog=f"`pgpooler COMMAND --help` teaches each command.\n\n{texts.EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pgpooler {__version__}")
    parsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        description, _, epilog = command.help.partition("\nexamples:\n")
        subparser = parsers.add_parser(
            name,
            help=command.summary,
            description=description,
            epilog=f"examples:\n{epilog}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(function=command.function)
        for names, settings in command.options:
            subparser.add_argument(*names, **settings)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status.  Wrong usage exits with 2 by SystemExit, as argparse does."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = build_parser()
    if not words:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    _check_command_name(parser, words[0])
    parsed = parser.parse_args(words)
    function: Callable[[argparse.Namespace], int] = parsed.function
    try:
        status = function(parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain again when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return status


def _check_command_name(parser: Parser, word: str) -> None:
    """Refuse an unknown command with the nearest known one; options are left to argparse."""
    if word.startswith("-") or word in COMMANDS:
        return
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    advice = f"did you mean `pgpooler {near[0]}`?" if near else f"the commands are {', '.join(COMMANDS)}"
    parser.error(f"unknown command {word!r}: {advice}")
