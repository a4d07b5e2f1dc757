"""Which implementation of the hot modules runs: Python, or what Cython compiled from the same files.

A compiled module lies beside its source and Python prefers it.  The environment variable PGPOOLER_IMPL forces the
choice: `python` ignores compiled modules, `compiled` refuses to run without them, unset takes what is there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType

HOT_MODULES = ("pgpooler.protocol.framer",)
"""The modules that can be compiled; each has a .pxd beside it.  setup.py reads this list."""

CHOICES = ("", "python", "compiled")


class HotModuleFinder:
    """Finds the hot modules in the one implementation that was asked for, before Python's own finder looks."""

    def __init__(self, wanted: str) -> None:
        self.suffixes = tuple(EXTENSION_SUFFIXES) if wanted == "compiled" else (".py",)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Say where a hot module comes from; None for any other module.

        Raises ImportError when the implementation that was asked for is not there.
        """
        if name not in HOT_MODULES:
            return None
        for folder in path or ():
            for suffix in self.suffixes:
                file = os.path.join(folder, name.rpartition(".")[2] + suffix)
                if os.path.exists(file):
                    return spec_from_file_location(name, file)
        raise ImportError(
            f"PGPOOLER_IMPL asks for an implementation of {name} that is not installed "
            f"(looked for {' or '.join(self.suffixes)} in {', '.join(path or ())}); "
            "install with PGPOOLER_COMPILE=yes to compile it, or unset PGPOOLER_IMPL",
            name=name,
        )


def force(wanted: str) -> None:
    """Load the hot modules as `wanted` says from now on; empty: whatever is there.

    Raises ImportError for an unknown value.
    """
    if wanted not in CHOICES:
        raise ImportError(f"PGPOOLER_IMPL is {wanted!r}; it may be 'python', 'compiled' or unset")
    if wanted and not any(isinstance(finder, HotModuleFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, HotModuleFinder(wanted))


def is_compiled(module: ModuleType) -> bool:
    """Say whether a module that is loaded came from a compiled file."""
    return (module.__file__ or "").endswith(tuple(EXTENSION_SUFFIXES))


def compiled_modules() -> list[str]:
    """List the hot modules that run compiled in this process, loading those that are not loaded yet."""
    return [name for name in HOT_MODULES if is_compiled(_load(name))]


def description() -> str:
    """Say in a few words which implementation runs: `python`, `compiled`, or which modules are compiled."""
    compiled = compiled_modules()
    if not compiled:
        return "python"
    if len(compiled) == len(HOT_MODULES):
        return "compiled"
    return f"compiled: {', '.join(compiled)}; the rest python"


def _load(name: str) -> ModuleType:
    __import__(name)
    return sys.modules[name]
