"""Conversations with PgPooler in each of its modes, message by message against the same ones with the server itself."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import Instance, backend
from spec.conformance.requests import SYNC, run
from spec.conformance.target import Target
from spec.conformance.words import shown
from spec.types import Item
from tests.integration.data_planes import DataPlaneFactory
from tests.integration.differential.comparison import LEFT_OPEN, Difference, Heard, difference
from tests.integration.differential.scripts import Script, copy_in, say, script, series
from tests.integration.differential.stages import TWO, Direct, Performance, Through
from tests.integration.differential.themes import THEMES
from tests.integration.differential.world import World
from tests.integration.faults import FaultProxy
from tests.integration.servers import TwoServers
from tests.integration.wire import row_values

PATIENCE = 20.0
"""Seconds of silence that count as hanging: far beyond what any step takes."""
MODES = {"session": False, "transaction": True, "statement": True}
"""The pool modes, and whether clients share server connections in them."""
AGAIN = "again"
"""The server itself, asked once more: what it says must not depend on luck."""
SCRIPTS = {f"{theme}: {script}": script for theme, scripts in THEMES.items() for script in scripts}


class Judged:
    """The server, and PgPooler in front of it in each mode; what the server said is asked once for every script."""

    def __init__(self, world: World, direct: Direct, through: dict[str, Through]) -> None:
        self.world = world
        self.direct = direct
        self.stages: dict[str, Direct | Through] = {AGAIN: direct, **through}
        self.said: dict[str, Performance] = {}

    def play(self, stage: Direct | Through, script: Script) -> Performance:
        with self.world.ready_for(script):
            performance = stage.play(script)
        performance.left = self.world.left_behind()
        return performance

    def directly(self, name: str) -> Performance:
        if name not in self.said:
            self.said[name] = self.play(self.direct, SCRIPTS[name])
        return self.said[name]

    def difference(self, one: Performance, other: Performance) -> Difference | None:
        return difference(one.heard, other.heard, self.world.newest)


@pytest.fixture(scope="module")
def judged(two_servers: TwoServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    server: PostgresServer = two_servers.primary
    database = f"test_{uuid.uuid4().hex}"
    server.execute(f"CREATE DATABASE {database}")
    user, password = server.superuser, server.password
    direct = Direct(Target(server.host, server.port, user, password, database, PATIENCE))
    with contextlib.ExitStack() as stack:
        stack.callback(server.execute, f"DROP DATABASE {database} WITH (FORCE)")
        world = World(server, database)
        stack.callback(world.connection.close)
        through = {}
        for mode, is_shared in MODES.items():
            factory = DataPlaneFactory(tmp_path_factory.mktemp(mode))
            stack.callback(factory.stop)
            defaults = {"pool_mode": mode, "pool_size": TWO, "max_pinned": TWO}
            data_plane = factory(two_servers.configuration(routing={"defaults": defaults}))
            target = Target(*data_plane.address, user, password, database, PATIENCE)
            through[mode] = stack.enter_context(contextlib.closing(Through(data_plane, target, is_shared=is_shared)))
        yield Judged(world, direct, through)


def words(found: Difference) -> tuple[str, str]:
    """The two messages of a difference as a declared deviation puts them."""
    direct, heard = ("" if it is None else it.message for it in (found.direct, found.heard))
    direct_words, heard_words = (it if isinstance(it, str) else shown(it) for it in (direct, heard))
    if isinstance(direct, Instance) and isinstance(heard, Instance) and direct.name == heard.name == "ErrorResponse":
        missing = set(fields(direct)) - set(fields(heard))
        if missing and fields(heard).items() <= fields(direct).items():
            heard_words += f" without {''.join(sorted(missing))}"
    return direct_words, heard_words


def fields(error: Instance) -> dict[str, bytes]:
    pairs: Any = error["fields"]
    return {code.decode(): text for code, text in pairs}


@pytest.mark.parametrize("stage", [AGAIN, *MODES])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_client_hears_what_it_hears_from_the_server_itself(judged: Judged, name: str, stage: str) -> None:
    script = SCRIPTS[name]
    direct, performance = judged.directly(name), judged.play(judged.stages[stage], script)
    found = judged.difference(direct, performance)
    declared = script.deviations.get(stage)
    if declared is None:
        assert found is None, str(found)
        assert performance.left == {}
    else:
        assert found is not None, f"nothing deviates any more: {declared.reason}"
        assert words(found) == (declared.direct, declared.heard), str(found)


def test_no_script_hides_another_of_the_same_name() -> None:
    assert len(SCRIPTS) == sum(len(scripts) for scripts in THEMES.values())


# -- the suite itself: whether it sees what it is there to see ---------------------------------------------------------

WHO = "SELECT pg_backend_pid()"
RICH = script(
    "a bit of everything",
    "SELECT number, word, feeling FROM item ORDER BY number LIMIT 2",
    "SELECT remark('notice', 'x'), complain()",
    series(*run("SELECT $1::int", "1")),
    "SET application_name TO rich",
    "LISTEN rich; NOTIFY rich, 'payload'",
    "COPY place TO STDOUT",
    copy_in("COPY play FROM STDIN", "1\n"),
    table="number int",
)


def altered(item: Item) -> Iterator[Item]:
    """The same with one thing in it changed, in each place once."""
    match item:
        case None:
            yield b""
        case int(number):
            yield number + 1
        case bytes(data):
            yield data + b"x"
            yield data[:-1] if data else None
        case tuple(items):
            yield items + items[-1:] if items else (b"",)
            for at, member in enumerate(items):
                yield from ((*items[:at], other, *items[at + 1 :]) for other in altered(member))


def spoilt(heard: list[Heard]) -> Iterator[tuple[int, list[Heard]]]:
    """Everything that can be wrong with one message, and the place where it is."""
    for at, entry in enumerate(heard):
        before, after = heard[:at], heard[at + 1 :]
        yield at, before + after
        yield at, [*before, replace(entry, step=entry.step + 1), *after]
        yield at, [*before, replace(entry, on="somebody else"), *after]
        yield at, [*before, Heard(entry.step, entry.on, "closed early"), entry, *after]
        if isinstance(entry.message, Instance):
            yield at, [*before, replace(entry, message=backend("Other")), *after]
            for name, item in entry.message.fields.items():
                if (entry.message.name, name) not in LEFT_OPEN or name == "columns":
                    for other in altered(item):
                        fields = {**entry.message.fields, name: other}
                        yield at, [*before, replace(entry, message=backend(entry.message.name, **fields)), *after]


def place(found: Difference | None, heard: list[Heard]) -> int:
    """Where the first difference is."""
    assert found is not None
    return next(at for at, entry in enumerate(heard) if entry is found.direct)


def test_any_change_of_any_message_is_noticed_where_it_is(judged: Judged) -> None:
    heard = judged.play(judged.direct, RICH).heard
    count = 0
    for at, changed in spoilt(heard):
        found = difference(heard, changed, judged.world.newest)
        # Of two messages that are alike, the loss of the first is seen where the second should be.
        assert at <= place(found, heard) <= at + 1, (at, str(found))
        count += 1
    assert count > 500
    more = difference(heard, [*heard, heard[-1]], judged.world.newest)
    assert more is not None
    assert more.direct is None


def test_two_new_objects_are_told_apart_from_one(judged: Judged) -> None:
    def described(*types: int) -> list[Heard]:
        columns = tuple((b"x", 0, 0, kind, 4, -1, 0) for kind in types)
        return [Heard(0, "first", backend("RowDescription", columns=columns))]

    new = judged.world.newest
    assert difference(described(new + 1, new + 2), described(new + 7, new + 9), new) is None
    assert difference(described(new + 1, new + 2), described(new + 7, new + 7), new) is not None
    assert difference(described(new + 1, new + 2), described(new + 7, 23), new) is not None


class Altering(FaultProxy):
    """A relay that puts one word in place of another of the same length on the way to the client."""

    def _send(self, destination: socket.socket, data: bytes, direction: str) -> None:
        super()._send(destination, data.replace(b"needle", b"noodle") if direction == "to client" else data, direction)


@pytest.mark.parametrize(
    "stitch",
    [
        script("a value", "SELECT 'need' || 'le'"),
        script("a notice", "DO $$ BEGIN RAISE NOTICE '%', 'need' || 'le'; END $$"),
        script("an error", 'SELECT "needle"'),
        script("a row of a COPY", "COPY (SELECT 'need' || 'le') TO STDOUT"),
        script("a parameter", "SET application_name TO needle"),
        script("a value in a series", say(*run("SELECT 'need' || $1::text", "le"), SYNC)),
    ],
    ids=str,
)
def test_a_pooler_that_alters_a_byte_is_noticed(judged: Judged, stitch: Script) -> None:
    target = judged.direct.target
    with Altering((target.host, target.port)) as proxy:
        said = judged.play(Direct(replace(target, host="127.0.0.1", port=proxy.port)), stitch)
    found = judged.difference(judged.play(judged.direct, stitch), said)
    assert found is not None
    assert "noodle" in str(found)


def test_a_pooler_that_ends_the_connection_is_noticed(judged: Judged) -> None:
    stitch = script("two steps", "SELECT 1", "SELECT repeat('x', 100000)", "SELECT 2")
    target = judged.direct.target
    proxy = FaultProxy((target.host, target.port))
    with proxy:
        proxy.cut_after(50_000)
        said = judged.play(Direct(replace(target, host="127.0.0.1", port=proxy.port)), stitch)
    found = judged.difference(judged.play(judged.direct, stitch), said)
    assert found is not None
    assert found.heard is not None
    assert (found.heard.step, str(found.heard.message).split(":")[0]) == (1, "garbled")


def process_ids(heard: list[Heard]) -> list[int]:
    """The only value of each row."""
    return [int(value) for value in row_values([it.message for it in heard if isinstance(it.message, Instance)])]


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_client_that_is_alone_changes_its_server_connection_at_every_step(judged: Judged, mode: str) -> None:
    performance = judged.play(judged.stages[mode], script("who, many times", *[WHO, series(*run(WHO))] * 4))
    used = process_ids(performance.heard)
    assert used == performance.free
    assert len(used) == 8
    assert all(one != other for one, other in pairwise(used))
    assert len(set(used)) == 2


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_client_that_is_pinned_keeps_its_server_connection_until_it_is_not(judged: Judged, mode: str) -> None:
    steps = [WHO, f"LISTEN pinned; {WHO}", WHO, WHO, f"UNLISTEN *; {WHO}", WHO]
    before, *pinned, after = process_ids(judged.play(judged.stages[mode], script("pinned", *steps)).heard)
    assert len(set(pinned)) == 1
    assert before != pinned[0] != after
