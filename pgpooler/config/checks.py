"""What must hold between values: names that exist, rules that can match, users that can log in.

The checks work on what could be read, also when something else could not, so that one run reports everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Final

from pgpooler.config.auth_query_checks import check_auth_query
from pgpooler.config.choices import LogDestination
from pgpooler.config.hba import HbaMethod
from pgpooler.config.hba_checks import WITH_PASSWORD, check_authorities, methods_of
from pgpooler.config.matchers import ANYTHING, covers
from pgpooler.config.model import Pattern, PoolSettings
from pgpooler.config.reader import Read, Reader
from pgpooler.config.secret_checks import VERIFIES_ONLY, secret_of
from pgpooler.config.source import Place, Sources
from pgpooler.config.tls_checks import check_channel_binding, check_tls
from pgpooler.config.values import check_socket_path, did_you_mean
from pgpooler.protocol.passwords import Md5Digest, ScramVerifier

NO_USERS: Final = (
    "nobody could log in: add 'users' (users: {alice: {password: ...}}), 'users_file' or 'auth_user' "
    "to the section 'auth'; to let everybody in without a password, write 'method: trust' there"
)
NO_USERS_FOR_ENTRIES: Final = (
    "nobody could log in: all entries of the file ask for passwords; "
    "add 'users' (users: {alice: {password: ...}}), 'users_file' or 'auth_user' to the section 'auth'"
)


def check(root: Read, reader: Reader) -> None:
    """Report everything that is wrong between the values of a configuration."""
    sources = reader.sources
    _check_listen(root.values.get("listen"), sources)
    _check_logging(root, sources)
    _check_backends(root.values.get("backends", ()), sources)
    _check_auth(root, reader)
    check_tls(root.values.get("tls"), sources)
    routing = root.values.get("routing")
    rules = routing.values.get("rules", ()) if routing else ()
    for rule in rules:
        _check_rule(rule, sources)
    _check_unique(rules, "rule", sources)
    _check_shadowed(rules, sources)
    _check_references(root.values.get("backends", ()), rules, reader)
    _check_pool_sizes(root, sources)


def _check_listen(listen: Read | None, sources: Sources) -> None:
    if not listen:
        return
    hosts = listen.values.get("hosts", ())
    if len(set(hosts)) < len(hosts) or ("*" in hosts and len(hosts) > 1):
        sources.error(listen.places["hosts"], "the same address would be listened on twice")
    folder = listen.values.get("unix_socket_dir")
    if folder:
        try:
            check_socket_path(f"{folder}/.s.PGSQL.{listen.values.get('port', 6432)}")
        except ValueError as error:
            sources.error(listen.places["unix_socket_dir"], str(error))
    elif "unix_socket_mode" in listen.places and "unix_socket_dir" not in listen.places:
        sources.warn(listen.places["unix_socket_mode"], "'unix_socket_mode' has no effect without 'unix_socket_dir'")


def _check_logging(root: Read, sources: Sources) -> None:
    logging = root.values.get("logging")
    if not logging:
        return
    file = logging.values.get("file")
    if "destination" not in logging.places and file:
        logging.values["destination"] = LogDestination.FILE
    if logging.values.get("destination") is LogDestination.FILE:
        if "file" not in logging.places:
            place = logging.places["destination"]
            sources.error(place, "'destination: file' needs the section 'file' with a 'path' or a 'directory'")
        elif file and not {"path", "directory"} & file.places.keys():
            sources.error(file.place, "the section 'file' needs a 'path' or a 'directory'")
    elif "file" in logging.places:
        sources.warn(logging.places["file"], "the section 'file' has no effect: the destination is stderr")
    if file and "path" in file.places:
        for name in ("directory", "filename"):
            if name in file.places:
                sources.warn(file.places[name], f"{name!r} has no effect beside 'path'")
    if file and "/" in file.values.get("filename", ""):
        sources.error(file.places["filename"], "'filename' must not hold a slash; the folder is 'directory'")


def _check_backends(backends: Iterable[Read], sources: Sources) -> None:
    _check_unique(backends, "backend", sources)
    for backend in backends:
        if "password" in backend.places and "user" not in backend.places:
            sources.error(backend.places["password"], "'password' has no effect without 'user'")
        elif isinstance(secret_of(backend, sources), ScramVerifier):
            sources.error(backend.places["password"], VERIFIES_ONLY)
        check_tls(backend.values.get("tls"), sources, host=backend.values.get("host", ""))
        check_channel_binding(backend, sources)


def _check_unique(named: Iterable[Read], what: str, sources: Sources) -> None:
    first: dict[str, Place] = {}
    for read in named:
        name = read.values.get("name")
        if name is not None:
            # Rules of one XML pool share its name: they are one name written once.
            place = read.places["name"]
            if first.setdefault(name, place) != place:
                sources.error(place, f"there is another {what} called {name!r} at {first[name]}")


def _check_auth(root: Read, reader: Reader) -> None:
    auth = root.values.get("auth")
    if not auth:
        if "auth" not in root.places:
            reader.sources.error(root.place, NO_USERS)
        return
    unread = _unread(auth, "users", "users_file", "hba_file", "ident_file")
    users: dict[str, Read] = auth.values.setdefault("users", {})
    errors = len(reader.sources.errors)
    if "users_file" in auth.values:
        reader.users_file(auth.values["users_file"], auth.places["users_file"], users)
    methods = methods_of(auth, reader)
    check_authorities(auth, root.values.get("tls"), reader.sources)
    nobody = not users and not unread and "auth_user" not in auth.places
    if methods <= WITH_PASSWORD and nobody and len(reader.sources.errors) == errors:
        if "hba_file" in auth.places:
            reader.sources.error(auth.places["hba_file"], NO_USERS_FOR_ENTRIES)
        else:
            place = auth.places.get("users_file") or auth.places.get("users") or auth.place
            reader.sources.error(place, NO_USERS)
    for name, user in users.items():
        _check_user(name, user, methods, reader.sources)
    if "failed_logins_window" in auth.places and "failed_logins_limit" not in auth.places:
        place = auth.places["failed_logins_window"]
        reader.sources.warn(place, "'failed_logins_window' has no effect without 'failed_logins_limit'")
    check_auth_query(auth, root.values.get("backends", ()), reader.sources)


def _check_user(name: str, user: Read, methods: frozenset[HbaMethod], sources: Sources) -> None:
    if "password" not in user.places:
        if methods <= WITH_PASSWORD:
            sources.error(user.place, f"user {name!r} needs a 'password' or a 'password_file'")
        return
    secret = secret_of(user, sources)
    if isinstance(secret, Md5Digest) and methods - {HbaMethod.REJECT} == {HbaMethod.SCRAM_SHA_256}:
        message = f"user {name!r} can never log in: scram-sha-256 cannot be proved with an md5 secret"
        sources.warn(user.places["password"], message)


def _check_rule(rule: Read, sources: Sources) -> None:
    matchers = [name for name in ("database", "user") if name in rule.places]
    if rule.values.get("default") and matchers:
        sources.error(
            rule.places["default"], f"a default rule matches everything; take out {matchers[0]!r} or 'default'"
        )
    elif not matchers and not rule.values.get("default") and ("default" in rule.values or "default" not in rule.places):
        sources.error(rule.place, "the rule matches nobody: it needs 'database', 'user' or 'default: true'")


def _check_references(backends: tuple[Read, ...], rules: tuple[Read, ...], reader: Reader) -> None:
    """Names that do not exist, and backends that nobody reaches."""
    known: dict[str, Read] = {backend.values.get("name", ""): backend for backend in backends}
    if not known or "" in known:
        return
    for name, place in reader.backend_references:
        if name not in known:
            reader.sources.error(place, f"there is no backend called {name!r}{did_you_mean(name, known)}")
    used = {rule.values.get("backend") for rule in rules} or {backends[0].values["name"]}
    for name, backend in known.items():
        if name not in used:
            reason = "no rule leads to it" if rules else "without rules everybody goes to the first"
            reader.sources.warn(backend.places["name"], f"backend {name!r} is never used: {reason}")


def _check_pool_sizes(root: Read, sources: Sources) -> None:
    """A pool cannot keep more server connections open than it may have."""
    backends: tuple[Read, ...] = root.values.get("backends", ())
    routing = root.values.get("routing")
    if not backends or _unread(root, "routing") or (routing and _unread(routing, "defaults", "rules")):
        return
    defaults, rules = (routing.values.get("defaults"), routing.values.get("rules", ())) if routing else (None, ())
    routes = [(rule, backend) for rule in rules for backend in backends if _leads_to(rule, backend)]
    for rule, backend in routes if rules else [(None, backends[0])]:
        least, least_place = _effective("min_pool_size", rule, backend, defaults)
        most, most_place = _effective("pool_size", rule, defaults)
        if least_place and least and most and least > most:
            where = f"the 'pool_size' {most} at {most_place}" if most_place else f"the built-in 'pool_size' {most}"
            sources.error(least_place, f"'min_pool_size' {least} is more than {where}")


def _leads_to(rule: Read, backend: Read) -> bool:
    return "name" in backend.values and rule.values.get("backend") == backend.values["name"]


def _unread(read: Read, *names: str) -> bool:
    """Whether one of these fields is written but could not be read."""
    return any(name in read.places and name not in read.values for name in names)


def _effective(name: str, *reads: Read | None) -> tuple[int | None, Place | None]:
    """A pool setting and its place: the first that is written (None if it could not be read), or the built-in one."""
    for read in reads:
        if read and name in read.places:
            return read.values.get(name), read.places[name]
    return getattr(PoolSettings(), name), None


def _check_shadowed(rules: tuple[Read, ...], sources: Sources) -> None:
    """Warn of rules that can never match, because earlier ones take everything they match."""
    combinations = [_combinations(rule) for rule in rules]
    for number, rule in enumerate(rules):
        takers: list[int] = []
        for wanted in combinations[number]:
            taker = next((n for n in range(number) if any(_takes(c, wanted) for c in combinations[n])), None)
            if taker is None:
                break
            takers.append(taker)
        else:
            if takers:
                by = " and ".join(f"rule {taker + 1} ({rules[taker].place})" for taker in sorted(set(takers)))
                sources.warn(rule.place, f"rule {number + 1} can never match: {by} takes all it matches")


def _combinations(rule: Read) -> list[tuple[Pattern, Pattern]]:
    """Every pair of a database pattern and a user pattern that the rule stands for."""
    anything = (ANYTHING,)
    return list(product(rule.values.get("database", anything), rule.values.get("user", anything)))


def _takes(wide: tuple[Pattern, Pattern], narrow: tuple[Pattern, Pattern]) -> bool:
    return covers(wide[0], narrow[0]) and covers(wide[1], narrow[1])
