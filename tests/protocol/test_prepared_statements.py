"""Prepared statements in the pooled modes: every client gets what a server of its own would answer, byte for byte.

All in memory: clients, chunks and turns are drawn, the server is the scripted one, which knows what PostgreSQL knows of
statements and portals.
"""

from __future__ import annotations

import re
from struct import pack

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from pgpooler.config.choices import PoolMode
from pgpooler.pooling.statements import LONGEST_KEPT
from tests.scripted import FLUSH, SYNC, Client, PostgreSQL, Setting, cut, direct_transcript, frame, query

NAMES = ("a", "b", "")
TEXTS = ("SELECT '{}'", "SELECT 'all'", "row c 2", "bad c", "fail c", "insert c", "BEGIN", "COMMIT")
QUERIES = ("SELECT '{}'", "BEGIN", "COMMIT", "fail c", "DEALLOCATE a", "DEALLOCATE ALL", "DEALLOCATE b;SELECT '{}'")


def parse(name: str, text: str) -> bytes:
    return frame("P", f"{name}\0{text}\0".encode() + pack("!h", 0))


def bind(name: str, portal: str = "") -> bytes:
    return frame("B", f"{portal}\0{name}\0".encode() + pack("!hhh", 0, 0, 0))


def execute(portal: str = "") -> bytes:
    return frame("E", portal.encode() + b"\0" + pack("!i", 0))


def describe(name: str) -> bytes:
    return frame("D", f"S{name}\0".encode())


def close(name: str, kind: str = "S") -> bytes:
    return frame("C", f"{kind}{name}\0".encode())


names = st.sampled_from(NAMES)
requests = st.one_of(
    st.builds(parse, names, st.sampled_from(TEXTS)),
    names.map(lambda name: bind(name) + execute()),
    names.map(bind),
    names.map(describe),
    names.map(close),
    st.just(close("", "P")),
    st.just(SYNC),
    st.just(FLUSH),
)
batches = st.lists(requests, max_size=6).map(lambda said: b"".join(said) + SYNC)
sayings = st.lists(st.one_of(batches, st.sampled_from(QUERIES).map(query)), min_size=1, max_size=8)
END = query("ROLLBACK")


@settings(deadline=None)
@given(data=st.data(), mode=st.sampled_from((PoolMode.TRANSACTION, PoolMode.STATEMENT)))
def test_every_client_gets_what_a_server_of_its_own_would_answer(data: st.DataObject, mode: PoolMode) -> None:
    """In statement mode what begins a block is left out."""
    setting = Setting(
        pool_mode=mode,
        pool_size=data.draw(st.integers(1, 3), label="pool_size"),
        max_prepared_statements=data.draw(st.sampled_from((1, 2, 200)), label="max_prepared_statements"),
        server_reset_query=data.draw(st.sampled_from(("always", "smart", "never")), label="reset"),
    )
    clients = [Client(setting.world, "") for _ in range(data.draw(st.integers(1, 3)))]
    setting.world.settle()
    said = dict.fromkeys(clients, b"")
    turns = st.tuples(st.sampled_from(clients), sayings, st.sampled_from((1, 7, 1 << 16)), st.booleans())
    for client, saying, chunk, wait in data.draw(st.lists(turns, min_size=1, max_size=8)):
        words = b"".join(saying).replace(b"{}", b"%02d" % clients.index(client))
        if mode is PoolMode.STATEMENT:
            words = words.replace(b"BEGIN\0", b"row c\0")
        setting.world.chunk = chunk
        said[client] += words
        client.say(words)
        if wait:
            setting.world.settle()
    for client in clients:
        said[client] += END
        client.say(END)
        setting.world.settle()
    for client in clients:
        note(f"{said[client]!r}")
        got, due = (
            list(cut(bytearray(all_of_it))) for all_of_it in (client.after_login, direct_transcript(said[client], ""))
        )
        assert got == due
    assert not setting.cluster.complaints
    setting.world.check_limits()


@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_the_same_text_is_prepared_once_on_a_server_whoever_says_it(chunk: int) -> None:
    setting = Setting(pool_mode=PoolMode.TRANSACTION, pool_size=1)
    setting.world.chunk = chunk
    parses: list[bytes] = []
    message = PostgreSQL._message

    def heard(process: PostgreSQL, kind: str, body: bytes) -> object:
        if kind == "P":
            parses.append(body)
        return message(process, kind, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgreSQL, "_message", heard)
        for client in [Client(setting.world, "") for _ in range(5)]:
            for name in ("one", "two"):
                client.say(parse(name, "SELECT 'x'") + bind(name) + execute() + SYNC)
                setting.world.settle()
                client.say(bind(name) + execute() + SYNC)
                setting.world.settle()
            assert client.kinds == "12DCZ2DCZ" * 2
    (only,) = parses
    assert re.fullmatch(rb"pgpooler_[0-9a-f]{8}_1\0SELECT 'x'\0\0\0", only)


def test_a_statement_whose_close_was_skipped_is_known_to_the_deallocate_behind_it() -> None:
    setting = Setting(pool_mode=PoolMode.TRANSACTION, pool_size=1)
    client = Client(setting.world, "")
    client.say(parse("a", "SELECT 'x'") + SYNC + bind("none") + close("a") + SYNC + query("DEALLOCATE a"))
    setting.world.settle()
    assert client.kinds == "1ZEZCZ"


def test_a_parse_that_failed_is_not_brought_back_by_the_deallocate_behind_it_that_failed_too() -> None:
    sayings = (
        query("BEGIN") + query("fail c"),
        parse("a", "SELECT 'x'") + SYNC + query("DEALLOCATE ALL") + query("ROLLBACK"),
        bind("a") + execute() + SYNC,
        bind("a") + execute() + SYNC,
    )
    setting = Setting(pool_mode=PoolMode.TRANSACTION, pool_size=1)
    client = Client(setting.world, "")
    for saying in sayings:
        client.say(saying)
        setting.world.settle()
    assert client.kinds == "CZEZEZEZCZEZEZ"
    assert bytes(client.after_login) == direct_transcript(b"".join(sayings), "")


def test_the_name_of_a_statement_that_is_too_long_to_be_kept_is_taken() -> None:
    said = parse("a", "SELECT 'x' --" + "x" * LONGEST_KEPT) + SYNC + parse("a", "SELECT 'y'") + SYNC
    setting = Setting(pool_mode=PoolMode.TRANSACTION, pool_size=1)
    client = Client(setting.world, "")
    client.say(said)
    setting.world.settle()
    assert client.kinds == "1ZEZ"
    client.say(close("a") + SYNC + parse("a", "SELECT 'y'") + bind("a") + execute() + SYNC)
    setting.world.settle()
    assert client.kinds == "1ZEZ3Z12DCZ"


def test_an_unnamed_statement_that_was_closed_unused_is_not_asked_for_again() -> None:
    setting = Setting(pool_mode=PoolMode.TRANSACTION, pool_size=1)
    client = Client(setting.world, "")
    client.say(parse("", "SELECT 'x'") + close("") + SYNC + parse("", "SELECT 'x'") + query("SELECT 'y'") + SYNC)
    setting.world.settle()
    assert client.kinds == "13Z1TDCZZ"


def test_a_notice_about_a_statement_that_is_prepared_again_takes_nothing_before_it_along() -> None:
    """The notice was told before and is left out; the parameter that the server reports in front of it is not."""
    setting = Setting(pool_mode=PoolMode.TRANSACTION, pool_size=2, server_reset_query="smart")
    client, other = (Client(setting.world, "") for _ in range(2))
    setting.world.settle()
    client.say(parse("s", "SELECT 'x'") + SYNC)
    setting.world.settle()
    other.say(query("BEGIN"))
    setting.world.settle()
    message = PostgreSQL._message

    def talkative(process: PostgreSQL, kind: str, body: bytes) -> object:
        if kind == "P":
            process.say(frame("S", b"TimeZone\0Asia/Tokyo\0") + frame("N", b"SNOTICE\0\0"))
        return message(process, kind, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgreSQL, "_message", talkative)
        client.say(bind("s") + execute() + SYNC)
        setting.world.settle()
    assert client.kinds == "1ZS2DCZ"
