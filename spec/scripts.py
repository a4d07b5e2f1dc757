"""Hypothesis strategies for what clients ask: scripts of requests, and what the texts in them mean.

A script is sent without waiting for replies, as fast or as slowly as the strategy in `conversations` likes.  Its texts
are few and known by heart: `MEANINGS` says what a server has to answer to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from spec import phrases as say
from spec.codec import Instance


@dataclass(frozen=True)
class Meaning:
    """What a text does: its tag (`%d` stands for the number of rows), and what it yields on the way.

    `width` is the number of columns of the rows it yields, None if it yields none.  `copy` names the response with
    which it begins a COPY.  `status` is the transaction status that it leaves, if it changes that.
    """

    tag: bytes = b""
    width: int | None = None
    copy: str = ""
    status: bytes = b""
    parameters: int = 0
    must_fail: bool = False
    adds_sets: bool = False


MISSING = Meaning(b"?", must_fail=True)
"""What a name means that nobody gave to anything."""

MEANINGS = {
    b"": Meaning(),
    b"SELECT 1": Meaning(b"SELECT %d", width=1),
    b"SELECT a, b FROM t": Meaning(b"SELECT %d", width=2),
    b"SELECT": Meaning(b"SELECT %d", width=0),
    b"SELECT $1, $2, 3": Meaning(b"SELECT %d", width=3, parameters=2),
    b"FETCH 3 FROM c": Meaning(b"FETCH %d", width=2),
    b"INSERT INTO t VALUES ($1)": Meaning(b"INSERT 0 2", parameters=1),
    b"INSERT INTO ruled VALUES (1)": Meaning(b"INSERT 0 1", width=1, adds_sets=True),
    b"DELETE FROM t RETURNING a, b": Meaning(b"DELETE %d", width=2),
    b"UPDATE t SET a = 1": Meaning(b"UPDATE 7"),
    b"CREATE TABLE u AS SELECT 1": Meaning(b"SELECT 1"),
    b"SET a TO 'b;c'": Meaning(b"SET"),
    b"BEGIN": Meaning(b"BEGIN", status=b"T"),
    b"COMMIT": Meaning(b"COMMIT", status=b"I"),
    b"ROLLBACK": Meaning(b"ROLLBACK", status=b"I"),
    b"COPY t FROM STDIN": Meaning(b"COPY 3", copy="CopyInResponse"),
    b"COPY t TO STDOUT": Meaning(b"COPY %d", copy="CopyOutResponse"),
    b"SELECT 1/0": Meaning(b"SELECT %d", width=1, must_fail=True),
    b"SELEC": Meaning(b"SELECT %d", must_fail=True),
}
"""The texts of the scripts.  Several may be joined by semicolons in a Query."""

SELECTED = Meaning(b"SELECT", width=2)
STREAM, FILE = Meaning(copy="CopyBothResponse"), Meaning(copy="CopyOutResponse")
STREAMS = {
    b"": (MEANINGS[b""],),
    b"IDENTIFY_SYSTEM": (Meaning(b"IDENTIFY_SYSTEM", width=4),),
    b"START_REPLICATION PHYSICAL 0/0": (STREAM, Meaning(b"START_STREAMING"), Meaning(b"START_REPLICATION")),
    b"START_REPLICATION PHYSICAL 0/0 TIMELINE 1": (STREAM, SELECTED, Meaning(b"START_REPLICATION")),
    b"BASE_BACKUP": (SELECTED, SELECTED, FILE, FILE, SELECTED, Meaning(b"BASE_BACKUP")),
    b"BASE_BACKUP (TABLESPACE_MAP)": (FILE, Meaning(b"BASE_BACKUP")),
    b"DROP_REPLICATION_SLOT s": (Meaning(b"DROP_REPLICATION_SLOT"),),
    b"COPY t FROM STDIN": (MEANINGS[b"COPY t FROM STDIN"],),
    b"INSERT INTO ruled VALUES (1)": (MEANINGS[b"INSERT INTO ruled VALUES (1)"],),
}
"""The same for replication connections, where a command has several parts.  A part without tag ends without one."""

ENDS_BLOCK = (b"COMMIT", b"ROLLBACK")


def texts() -> SearchStrategy[bytes]:
    """Return a strategy for the texts of Queries: one statement or several."""
    return st.lists(st.sampled_from(sorted(MEANINGS)), min_size=1, max_size=3).map(b"; ".join)


def copies() -> SearchStrategy[list[Instance]]:
    """Return a strategy for what a client sends into a COPY, or into none."""
    inside = st.lists(st.sampled_from((say.copy_data(b"1\n"), say.FLUSH, say.SYNC)), max_size=3)
    ends = st.sampled_from(([say.COPY_DONE], [say.COPY_FAIL], [say.COPY_DONE, say.COPY_DONE], []))
    return st.tuples(inside, ends).map(lambda parts: [*parts[0], *parts[1]])


def copying() -> SearchStrategy[list[Instance]]:
    """Return a strategy for a COPY from the client, with what it sends into it."""
    text = b"COPY t FROM STDIN"
    begins = st.sampled_from(([say.query(text)], [say.parse(text), say.bind(), say.execute()]))
    return st.tuples(begins, copies()).map(lambda parts: [*parts[0], *parts[1]])


@st.composite
def series(draw: DrawFn) -> list[Instance]:
    """Draw some extended messages and a Sync."""
    statement, portal = draw(st.sampled_from((b"", b"s", b"r"))), draw(st.sampled_from((b"", b"p")))
    text = draw(st.sampled_from(sorted(MEANINGS)))
    number = draw(st.sampled_from((MEANINGS[text].parameters,) * 4 + (0, 2)))
    values: list[bytes | None] = [b"1"] * number
    steps = [
        say.parse(text, statement),
        say.describe_statement(statement),
        say.bind(*values, statement=statement, portal=portal),
        say.describe_portal(portal),
        say.execute(draw(st.sampled_from((0, 1, 2, -1))), portal),
        say.execute(draw(st.sampled_from((0, 2))), portal),
        say.FLUSH,
        say.close_portal(portal),
        say.close_statement(statement),
    ]
    left_out = draw(st.sets(st.integers(0, len(steps) - 1), max_size=2))
    whole = [step for number, step in enumerate(steps) if number not in left_out]
    return [*whole, *draw(copies() | st.just([])), say.SYNC]


def plain_scripts() -> SearchStrategy[list[Instance]]:
    """Return a strategy for scripts as every client has them: a Query, or one statement step by step; no mistakes."""
    text, limit = st.sampled_from(sorted(MEANINGS)), st.sampled_from((0, 1, 2, 2))
    queries = st.tuples(text, text).map(lambda pair: [say.query(b"; ".join(pair)), say.COPY_DONE, say.COPY_DONE])
    extended = st.tuples(text, limit).map(lambda pair: step_by_step(*pair))
    call = st.just([say.function_call(b"1", b"2")])
    return st.tuples(queries | extended, queries | extended | call).map(lambda pair: [*pair[0], *pair[1], say.SYNC])


def step_by_step(text: bytes, limit: int) -> list[Instance]:
    """Return the requests by which a statement is run in extended messages."""
    values: list[bytes | None] = [b"1"] * MEANINGS[text].parameters
    before = [say.parse(text), say.describe_statement(), say.bind(*values), say.describe_portal()]
    return [*before, say.execute(limit), say.COPY_DONE, say.execute(), say.close_statement(), say.SYNC]


def scripts() -> SearchStrategy[list[Instance]]:
    """Return a strategy for the requests of a session; the last of them is one that is answered by ReadyForQuery."""
    queries = st.tuples(texts().map(say.query), copies() | st.just([])).map(lambda parts: [parts[0], *parts[1]])
    others = st.sampled_from(([say.function_call(b"1", b"2")], [say.FLUSH], [say.COPY_DONE], [say.SYNC, say.SYNC]))
    parts = st.lists(queries | series() | copying() | series() | others, min_size=1, max_size=5)
    return plain_scripts() | parts.map(lambda lists: [request for part in lists for request in part] + [say.SYNC])


@st.composite
def named_scripts(draw: DrawFn) -> list[Instance]:
    """Draw the lives of a few named statements: prepared once, run in several cycles, closed, prepared anew.

    A client knows what it has prepared, but for what failed, and binds the number of values that is right.
    """
    texts_ = st.sampled_from(sorted(text for text in MEANINGS if not MEANINGS[text].copy))
    prepared: dict[bytes, bytes] = {}
    script: list[Instance] = []
    for _ in range(draw(st.integers(1, 8))):
        name = draw(st.sampled_from((b"s", b"r")))
        deed = draw(st.sampled_from(("run", "run", "describe", "close"))) if name in prepared else "prepare"
        match deed:
            case "prepare":
                prepared[name] = draw(texts_)
                script.append(say.parse(prepared[name], name))
            case "run":
                values: list[bytes | None] = [b"1"] * MEANINGS[prepared[name]].parameters
                portal = draw(st.sampled_from((b"", b"p")))
                script += [say.bind(*values, statement=name, portal=portal), say.execute(0, portal)]
            case "describe":
                script.append(say.describe_statement(name))
            case "close":
                del prepared[name]
                script.append(say.close_statement(name))
        script += draw(st.sampled_from(([say.SYNC], [say.SYNC], [say.FLUSH], [])))
    return [*script, say.SYNC]


def replication_scripts() -> SearchStrategy[list[Instance]]:
    """Return a strategy for the requests of a replication connection."""
    texts_ = st.lists(st.sampled_from(sorted(STREAMS)), min_size=1, max_size=3).map(b"; ".join)
    data = st.lists(st.just(say.copy_data(b"r")), max_size=2)
    parts = st.lists(st.tuples(texts_, data).map(streamed), min_size=1, max_size=4)
    return parts.map(lambda lists: [request for part in lists for request in part] + [say.SYNC])


def streamed(part: tuple[bytes, list[Instance]]) -> list[Instance]:
    """Return a replication command, what is sent into its first stream, and the end of every stream it may begin."""
    text, data = part
    return [say.query(text), *data, *[say.COPY_DONE] * (text.count(b";") + 1)]
