"""Loads a configuration: a file ending in `.xml` is the XML form, anything else the YAML form."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pgpooler.config.checks import check
from pgpooler.config.model import Configuration
from pgpooler.config.reader import INVALID, Reader, build
from pgpooler.config.source import Broken, Sources
from pgpooler.config.xml_file import read_xml
from pgpooler.config.yaml_files import read_yaml
from pgpooler.errors import Problem


@dataclass(frozen=True)
class Loaded:
    """A configuration that can run, and what is probably not meant in it."""

    configuration: Configuration
    warnings: tuple[Problem, ...]


def default_path() -> str:
    """The main file when the command line names none: $CONFIG_PATH, or pgpooler.yaml in the current folder."""
    return os.environ.get("CONFIG_PATH") or "pgpooler.yaml"


def load(path: str | os.PathLike[str], environment: Mapping[str, str] | None = None) -> Loaded:
    """Read the main file and all it names; `environment` is what `${NAME}` means (default: the process's own).

    Raises ConfigurationError with every problem that was found.
    """
    name = os.fspath(path)
    sources = Sources(name, os.environ if environment is None else environment)
    tree = read_xml(sources) if name.lower().endswith(".xml") else read_yaml(sources)
    reader = Reader(sources)
    root = INVALID if isinstance(tree, Broken) else reader.section(tree, Configuration, "the configuration")
    if root is not INVALID:
        check(root, reader)
    sources.raise_errors()
    root.values["files"] = tuple(dict.fromkeys(sources.files))
    return Loaded(build(root), tuple(sources.in_file_order(sources.warnings)))
