"""The commands themselves: each takes the parsed arguments and returns the exit status."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import sys
from typing import Any, Final

from pgpooler import __version__, implementation
from pgpooler.cli.output import count, print_json, print_table
from pgpooler.config.keys import keys_of
from pgpooler.config.load import Loaded, default_path, load
from pgpooler.config.model import NO_LIMIT, Auth, Backend, Configuration, PoolSettings
from pgpooler.config.routing import Route, Router
from pgpooler.errors import ConfigurationError, Problem

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2

ZERO_IS_NO_LIMIT: Final = frozenset(
    ("pool_size", "backend.pool_size", "max_queue", "max_user_client_connections", "max_db_client_connections")
)


def run(arguments: argparse.Namespace) -> int:
    """`pgpooler run`."""
    from pgpooler.process import supervisor

    return supervisor.run(_path(arguments))


def check(arguments: argparse.Namespace) -> int:
    """`pgpooler check`."""
    path = _path(arguments)
    try:
        loaded = load(path)
    except ConfigurationError as error:
        if arguments.json:
            print_json({"ok": False, "problems": [_problem(problem) for problem in error.problems]})
            return EXIT_USAGE
        for problem in error.problems:
            print(problem)
        print(f"{path}: {count(len(error.problems), 'problem')}", file=sys.stderr)
        return EXIT_USAGE
    if arguments.json:
        print_json(_summary(loaded))
        return EXIT_OK
    configuration = loaded.configuration
    for warning in loaded.warnings:
        print(f"warning: {warning}")
    print(f"ok: {count(len(configuration.files), 'file')}: {', '.join(configuration.files)}")
    backends = ", ".join(f"{backend.name} ({_address(backend)})" for backend in configuration.backends)
    rules = str(len(configuration.routing.rules) or "none: everybody goes to the first backend")
    print_table(
        [
            ["listen", ", ".join(_listen_addresses(configuration))],
            ["backends", f"{len(configuration.backends)}: {backends}"],
            ["rules", rules],
            ["users", _users(configuration.auth)],
            ["tls", configuration.tls.demand],
            ["warnings", str(len(loaded.warnings))],
        ]
    )
    return EXIT_OK


def _users(auth: Auth) -> str:
    method = f"hba_file: {count(len(auth.hba), 'line')}" if auth.hba_file else auth.method
    listed = f"{len(auth.users)} ({method})"
    return f"{listed}, others are looked up by {auth.auth_user}" if auth.auth_user else listed


def route(arguments: argparse.Namespace) -> int:
    """`pgpooler route`."""
    try:
        configuration = load(_path(arguments)).configuration
    except ConfigurationError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return EXIT_USAGE
    user, database = arguments.user, arguments.database or arguments.user
    found = Router(configuration).route(user, database)
    asked = {"user": user, "database": database}
    if found is None:
        if arguments.json:
            print_json(asked | {"route": None, "sqlstate": "3D000"})
        else:
            print(
                f"No rule matches user {user!r} and database {database!r}: such a client is refused with "
                "SQLSTATE 3D000.\nAdd a rule for it, or one with `default: true` at the end.",
            )
        return EXIT_FAILED
    limits = _limits(configuration, found)
    if arguments.json:
        print_json(asked | {"route": _route_values(found, limits)})
        return EXIT_OK
    print_table(
        [
            ["client", f"user {user}, database {database}"],
            ["matched by", found.rule],
            ["backend", f"{found.backend.name} ({_address(found.backend)})"],
            ["server user", found.backend.user or f"{user} (the client's own)"],
        ]
    )
    print()
    print_table([["SETTING", "VALUE", "FROM"], *([name, _shown(name, value), where] for name, value, where in limits)])
    return EXIT_OK


def demo(arguments: argparse.Namespace) -> int:
    """`pgpooler demo`."""
    # Imported here, as the supervisor above: nobody waits for, or depends on, what this run does not need.
    from pgpooler.demo import command

    return command.main(arguments)


def version(arguments: argparse.Namespace) -> int:
    """`pgpooler version`."""
    values = {
        "pgpooler": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "implementation": implementation.description(),
        "event_loop": _event_loop(),
        "platform": platform.platform(),
    }
    if arguments.json:
        print_json(values)
    else:
        print_table([[name.replace("_", " "), value] for name, value in values.items()])
    return EXIT_OK


def _path(arguments: argparse.Namespace) -> str:
    return arguments.config or default_path()


def _event_loop() -> str:
    if importlib.util.find_spec("uvloop") is None:
        return "asyncio"
    return f"uvloop {importlib.metadata.version('uvloop')}"


def _limits(configuration: Configuration, found: Route) -> list[tuple[str, Any, str]]:
    """Every limit that holds for a client of this route: name, value, where the value comes from."""
    rows = [(name, _effective(found, name), found.origins[name]) for name in PoolSettings.__struct_fields__]
    for owner, name, section in (
        (found.backend, "pool_size", f"backend '{found.backend.name}'"),
        (configuration.limits, "max_client_conn", "limits"),
        (configuration.timeouts, "client_login_timeout", "timeouts"),
    ):
        value = getattr(owner, name)
        origin = "built-in" if value == keys_of(type(owner))[name].default else section
        rows.append(("backend.pool_size" if owner is found.backend else name, value, origin))
    return rows


def _effective(found: Route, name: str) -> Any:
    """What a setting comes to; None = no limit, where 0 is one."""
    if name == "max_pinned":
        return None if found.pinned_limit == NO_LIMIT else found.pinned_limit
    return getattr(found, name)


def _route_values(found: Route, limits: list[tuple[str, Any, str]]) -> dict[str, Any]:
    return {
        "rule": {"name": found.rule_name, "number": found.rule_number, "place": found.place},
        "backend": {"name": found.backend.name, "host": found.backend.host, "port": found.backend.port},
        "server_user": found.backend.user or None,
        "settings": {name: {"value": value, "from": where} for name, value, where in limits},
    }


def _summary(loaded: Loaded) -> dict[str, Any]:
    configuration = loaded.configuration
    return {
        "ok": True,
        "files": configuration.files,
        "listen": _listen_addresses(configuration),
        "backends": [
            {"name": backend.name, "host": backend.host, "port": backend.port} for backend in configuration.backends
        ],
        "rules": len(configuration.routing.rules),
        "users": len(configuration.auth.users),
        "auth_method": "hba" if configuration.auth.hba_file else configuration.auth.method,
        "tls_mode": configuration.tls.demand,
        "warnings": [_problem(problem) for problem in loaded.warnings],
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "column": problem.column, "message": problem.message}


def _address(backend: Backend) -> str:
    if backend.host.startswith("/"):
        return f"{backend.host}/.s.PGSQL.{backend.port}"
    return f"[{backend.host}]:{backend.port}" if ":" in backend.host else f"{backend.host}:{backend.port}"


def _listen_addresses(configuration: Configuration) -> list[str]:
    listen = configuration.listen
    found = [f"[{host}]:{listen.port}" if ":" in host else f"{host}:{listen.port}" for host in listen.hosts]
    if listen.unix_socket_dir:
        found.append(f"{listen.unix_socket_dir}/.s.PGSQL.{listen.port}")
    return found


def _shown(name: str, value: Any) -> str:
    """A setting's value for people: its unit, and what 0 means."""
    if value is None or (name in ZERO_IS_NO_LIMIT and value == 0):
        return "no limit"
    if isinstance(value, float):
        return f"{value:g} s" if value else "off"
    return str(value)
