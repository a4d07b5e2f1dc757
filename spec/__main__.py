"""The command `python -m spec`: tables, export, judge, record, and conformance where that is there.

What was asked for goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from spec import export, record, tables, trace, usage
from spec.record import Address
from spec.trace import BadTrace, Event
from spec.verdicts import COULD_NOT_RUN, DEVIATES, Verdicts

STANDARD_INPUT: Final = 0  # its descriptor

Function = Callable[[argparse.Namespace], int]


class Command(NamedTuple):
    """One command: its function, one line for the list of commands, the text of its help, and what adds its options."""

    function: Function
    summary: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None


# --- tables, export


def print_tables(options: argparse.Namespace) -> int:
    """Print the protocol as Markdown."""
    print(tables.page(), end="")
    return 0


def print_export(options: argparse.Namespace) -> int:
    """Print the protocol as JSON."""
    print(export.text(), end="")
    return 0


# --- judge


def add_judge_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `judge` is told."""
    parser.add_argument("trace", metavar="TRACE", help="the file with the recording; - is standard input")


def judge(options: argparse.Namespace) -> int:
    """Judge a trace file."""
    verdicts = Verdicts()
    source, name = (STANDARD_INPUT, "standard input") if options.trace == "-" else (options.trace, options.trace)
    try:
        with open(source, encoding="utf-8", errors="backslashreplace") as file:
            for event in trace.parse(file, name):
                print_found(verdicts, event)
    except BrokenPipeError:
        raise
    except (BadTrace, OSError) as error:
        return fail(error)
    print(*verdicts.table(), sep="\n")
    return verdicts.status


def print_found(verdicts: Verdicts, event: Event) -> None:
    """Judge an event and print the violations it makes certain."""
    for found in verdicts.hear(event):
        print(*found.lines(), sep="\n", flush=True)


# --- record


def add_record_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `record` is told."""
    parser.add_argument(
        "--listen", metavar="HOST:PORT", type=address, required=True, help="where clients connect; port 0 is a free one"
    )
    parser.add_argument("--target", metavar="HOST:PORT", type=address, required=True, help="the server or pooler")
    parser.add_argument("--trace", metavar="FILE", type=Path, help="write everything that is said to this file")
    parser.add_argument(
        "--connections", metavar="N", type=positive, help="end when this many connections are over (default: on Ctrl-C)"
    )
    parser.add_argument("--verdict-only", action="store_true", help="print the table, not each violation")


def address(text: str) -> Address:
    """Return the host and port that `text` names; ArgumentTypeError when it names none."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT, such as 127.0.0.1:5432 or [::1]:5432")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def positive(text: str) -> int:
    """Return the whole number from 1 that `text` is; ArgumentTypeError when it is none."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of connections")
    return int(text)


def run_record(options: argparse.Namespace) -> int:
    """Record until Ctrl-C, or until enough connections are over."""
    verdicts = Verdicts()
    try:
        with record.listen(options.listen) as listening, trace_file(options.trace) as file:
            writer = trace.Writer(file, place(options.target)) if file else None

            def hear(event: Event) -> None:
                if writer:
                    writer.write(event)
                if options.verdict_only:
                    verdicts.hear(event)
                else:
                    print_found(verdicts, event)
                if verdicts.has_become_encrypted(event):
                    complain(f"connection {event.connection}: encrypted from here on; only bytes are passed on")

            unreachable = asyncio.run(serve(options, listening, hear))
    except BrokenPipeError:
        raise
    except OSError as error:
        return fail(error)
    print(*verdicts.table(), sep="\n")
    return COULD_NOT_RUN if unreachable and verdicts.status != DEVIATES else verdicts.status


@contextlib.contextmanager
def trace_file(path: Path | None) -> Iterator[TextIO | None]:
    """The open file that the trace goes to, if any; every line is in it as soon as it is written."""
    if path is None:
        yield None
    else:
        with path.open("w", encoding="utf-8", buffering=1) as file:
            yield file


async def serve(options: argparse.Namespace, listening: socket.socket, hear: record.Hear) -> int:
    """Record until it is over or a signal ends it; return how many clients could not be connected to the target."""
    recorder = record.Recorder(options.target, hear, complain)
    work = asyncio.ensure_future(recorder.serve(listening, options.connections))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    complain(f"recording on {place(listening.getsockname())}, in front of {place(options.target)}; Ctrl-C ends it")
    try:
        await work
    except asyncio.CancelledError:
        pass
    except BaseExceptionGroup as group:
        raise first(group) from group
    return recorder.unreachable


def first(failure: BaseException) -> BaseException:
    """Return what failed first in groups within groups."""
    return first(failure.exceptions[0]) if isinstance(failure, BaseExceptionGroup) else failure


def place(address: Sequence[str | int]) -> str:
    """Return an address as it is written on the command line."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def complain(text: str) -> None:
    """Say something that was not asked for."""
    print(text, file=sys.stderr, flush=True)


def fail(error: Exception) -> int:
    """Say why it could not run; return the exit status."""
    complain(f"python -m spec: {error}")
    return COULD_NOT_RUN


# --- conformance


def add_conformance_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `conformance` is told."""
    importlib.import_module("spec.conformance").add_arguments(parser)


def run_conformance(options: argparse.Namespace) -> int:
    """Run the conformance suite."""
    status: int = importlib.import_module("spec.conformance").run(options)
    return status


# --- all of them

COMMANDS: Final = {
    "tables": Command(print_tables, "print the protocol as Markdown tables", usage.TABLES),
    "export": Command(print_export, "print the protocol as JSON", usage.EXPORT),
    "judge": Command(judge, "judge a recording", usage.JUDGE, add_judge_arguments),
    "record": Command(run_record, "record live traffic, and judge it", usage.RECORD, add_record_arguments),
}
if importlib.util.find_spec("spec.conformance"):
    COMMANDS["conformance"] = Command(
        run_conformance, "test a server or pooler", usage.CONFORMANCE, add_conformance_arguments
    )


def build_parser(chosen: str = "") -> argparse.ArgumentParser:
    """Return the parser of the command line; it knows the options of one command, and imports only what that needs.

    The command's function becomes the argument `function`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m spec",
        description=usage.OVERVIEW,
        epilog=f"`python -m spec COMMAND --help` teaches each command.\n\n{usage.EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
        if name == chosen:
            command.add_arguments(subparser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status.  Wrong usage exits with 2 by SystemExit, as argparse does."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = build_parser(*words[:1])
    if not words:
        parser.print_help(sys.stderr)
        return COULD_NOT_RUN
    options = parser.parse_args(words)
    function: Function = options.function
    try:
        status = function(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain again when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return COULD_NOT_RUN
    return status


if __name__ == "__main__":
    sys.exit(main())
