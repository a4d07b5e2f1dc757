"""Coverage-guided fuzzing: `python -m tests.fuzz [target ...]`, or `tox run -e fuzz`.

Each target is run by atheris in a process of its own, beginning with its pieces and with what earlier runs have found
in the folder `--corpus`.  Exit code 0: whatever was tried, every target came back as it should; 1: not so, and the
input is in that folder, in a file whose name says what became of it.  `--input FILE` runs one input again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

SECONDS = float(os.environ.get("PGPOOLER_FUZZ_SECONDS", "60"))
SLOW = 20
"""Seconds after which one input is called slow."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("target", nargs="*", help="(default: every one)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each target (default %(default)g)")
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"), help="(default %(default)s)")
    parser.add_argument("--input", type=Path, help="run this one input, with one target")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def fuzz(options: argparse.Namespace) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["pgpooler"]):
        from tests.fuzz.targets import TARGETS

    (name,) = options.target
    target = TARGETS[name]
    folder = options.corpus / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, piece in enumerate(target.pieces):
        (folder / f"piece-{number}").write_bytes(piece)
    (folder / "pieces").write_bytes(b"".join(target.pieces))
    limits = [f"-max_total_time={int(options.seconds)}", f"-max_len={target.longest}", f"-timeout={SLOW}"]
    found = f"-artifact_prefix={options.corpus}/{name}-"
    atheris.Setup([sys.argv[0], *limits, found, "-print_final_stats=1", str(folder)], target.run)
    atheris.Fuzz()


def every_one(options: argparse.Namespace) -> int:
    """Fuzz the targets one after the other, each in a process of its own."""
    from tests.fuzz.targets import TARGETS

    if unknown := set(options.target) - TARGETS.keys():
        print(f"no such target: {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    wrong = []
    for name in options.target or TARGETS:
        keys = ["--here", "--seconds", str(options.seconds), "--corpus", str(options.corpus)]
        done = subprocess.run([sys.executable, "-m", "tests.fuzz", name, *keys], capture_output=True, text=True)
        lines = done.stderr.splitlines()
        figures = [line.removeprefix("stat::").split(": ") for line in lines if line.startswith("stat::")]
        tried = next((int(value) for key, value in figures if key == "number_of_executed_units"), 0)
        print(f"{name}: {tried} inputs, exit code {done.returncode}", flush=True)
        if done.returncode:
            wrong.append(name)
            print(*lines[-40:], done.stdout[-4000:], sep="\n", flush=True)
    return int(bool(wrong))


def main() -> int:
    options = arguments()
    if options.input is not None:
        from tests.fuzz.targets import TARGETS

        (name,) = options.target
        TARGETS[name].run(options.input.read_bytes())
        return 0
    if not options.here:
        return every_one(options)
    fuzz(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
