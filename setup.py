"""Compiles the hot modules with Cython when asked to; everything else about the package is in pyproject.toml.

PGPOOLER_COMPILE says whether: `yes` (fail without a C compiler), `no`, or `auto`, the default: when a C compiler is
there.  An editable install (`pip install -e`) compiles only on `yes`, because the result would lie in the checkout and
Python prefers it to the source that is being edited.
"""

from __future__ import annotations

import ast
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CYTHON = "Cython>=3.1"
DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,  # an annotation is a promise to mypy, not a C type: those are in the .pxd
    "nonecheck": True,  # an attribute of None is an AttributeError, not a crash
    "boundscheck": True,
    "overflowcheck": True,
}
MODES = ("auto", "yes", "no")


def hot_modules() -> list[str]:
    """Read HOT_MODULES from pgpooler/implementation.py without importing the package."""
    tree = ast.parse(Path("pgpooler/implementation.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HOT_MODULES":
            return list(ast.literal_eval(node.value))
    raise SystemExit("pgpooler/implementation.py has no HOT_MODULES")


def lacking() -> str:
    """Name what is not there to compile C; empty when all is there."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(command.split()[0]) is None:
        return "a C compiler (Debian: apt install gcc libc6-dev)"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "Python.h (Debian: apt install python3-dev)"
    return ""


def compile_wanted() -> bool:
    """Decide whether to compile, say so, and stop with advice where that cannot be."""
    mode = os.environ.get("PGPOOLER_COMPILE") or "auto"
    if mode not in MODES:
        raise SystemExit(f"PGPOOLER_COMPILE is {mode!r}; it may be one of: {', '.join(MODES)}")
    missing = lacking()
    if mode == "yes" and missing:
        raise SystemExit(f"PGPOOLER_COMPILE=yes needs {missing}")
    wanted = mode == "yes" or (mode == "auto" and not missing and "editable_wheel" not in sys.argv)
    print(f"PgPooler: the hot modules {'are compiled' if wanted else 'stay Python'}", file=sys.stderr)
    return wanted


class BuildExtensions(build_ext):
    """Lets Cython turn the sources into C just before they are compiled: only then is it sure to be installed."""

    def build_extensions(self) -> None:
        """Translate, keeping the C files out of the source tree, and compile."""
        from Cython.Build import cythonize

        for extension in self.extensions:
            modules = [Extension(extension.name, extension.sources)]
            (translated,) = cythonize(modules, build_dir="build/cython", compiler_directives=DIRECTIVES)
            extension.sources = translated.sources
        super().build_extensions()


def extensions() -> list[Extension]:
    """Name one extension per hot module; its source is the very file that also runs as Python."""
    # Where `auto` meets a compiler that fails, the Python code stays and works; `yes` must not hide that.
    optional = os.environ.get("PGPOOLER_COMPILE") != "yes"
    flags = ["-g0"]  # debugging information would be nine tenths of the file
    return [
        Extension(name, [name.replace(".", "/") + ".py"], optional=optional, extra_compile_args=flags)
        for name in hot_modules()
    ]


if compile_wanted():
    setup(setup_requires=[CYTHON], ext_modules=extensions(), cmdclass={"build_ext": BuildExtensions})
else:
    setup()
