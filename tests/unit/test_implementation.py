from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from pgpooler.implementation import HOT_MODULES, HotModuleFinder, force, is_compiled

HOT = HOT_MODULES[0]
NAME = HOT.rpartition(".")[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package folder with a module as source and, beside it, compiled."""
    (tmp_path / f"{NAME}.py").touch()
    (tmp_path / f"{NAME}{EXTENSION_SUFFIXES[0]}").touch()
    return tmp_path


def run(code: str, wanted: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PGPOOLER_IMPL": wanted}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_python_is_found_even_where_a_compiled_module_lies_beside_it(folder: Path) -> None:
    found = HotModuleFinder("python").find_spec(HOT, [str(folder)])
    assert found is not None
    assert found.origin == str(folder / f"{NAME}.py")


def test_the_compiled_module_is_found_beside_its_source(folder: Path) -> None:
    found = HotModuleFinder("compiled").find_spec(HOT, [str(folder)])
    assert found is not None
    assert found.origin == str(folder / f"{NAME}{EXTENSION_SUFFIXES[0]}")


def test_asking_for_a_compiled_module_that_is_not_there_says_how_to_get_it(folder: Path) -> None:
    (folder / f"{NAME}{EXTENSION_SUFFIXES[0]}").unlink()
    with pytest.raises(ImportError, match="PGPOOLER_COMPILE=yes"):
        HotModuleFinder("compiled").find_spec(HOT, [str(folder)])


def test_modules_that_are_not_hot_are_left_to_python(folder: Path) -> None:
    assert HotModuleFinder("python").find_spec("pgpooler.errors", [str(folder)]) is None


def test_an_unknown_implementation_is_refused() -> None:
    with pytest.raises(ImportError, match=r"'c'.*'python', 'compiled' or unset"):
        force("c")


def test_pgpooler_impl_python_loads_the_source() -> None:
    completed = run(f"import {HOT} as hot; print(hot.__file__)", "python")
    assert completed.stderr == ""
    assert completed.stdout.strip().endswith(".py")


def test_an_unknown_pgpooler_impl_ends_the_program_at_once() -> None:
    completed = run("import pgpooler", "fast")
    assert completed.returncode != 0
    assert "PGPOOLER_IMPL is 'fast'" in completed.stderr


def test_every_hot_module_has_its_types_in_a_pxd_beside_it() -> None:
    package = Path(sys.modules["pgpooler"].__path__[0])
    for name in HOT_MODULES:
        parts = name.split(".")[1:]
        assert package.joinpath(*parts).with_suffix(".py").is_file()
        assert package.joinpath(*parts).with_suffix(".pxd").is_file()


def test_a_python_module_is_not_taken_for_a_compiled_one() -> None:
    assert not is_compiled(sys.modules["pgpooler.implementation"])
