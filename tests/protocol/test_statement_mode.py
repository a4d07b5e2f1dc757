"""Statement mode in memory: a server connection per statement, and no transaction blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import PoolMode
from pgpooler.pooling.states import ClientState, ServerState
from pgpooler.protocol import messages
from tests.scripted import (
    COPY_DONE,
    COPY_FAIL,
    FLUSH,
    SYNC,
    TERMINATE,
    Client,
    PostgreSQL,
    Recording,
    Setting,
    copy_data,
    cut,
    direct_transcript,
    extended,
    frame,
    query,
)

BLOCK = query("begin c1") + query("insert c1") + query("commit c1")


class Statements(Setting):
    """A world in statement mode."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"pool_mode": PoolMode.STATEMENT, "server_reset_query": "always", **settings})

    def say(self, client: Client, data: bytes) -> None:
        client.say(data)
        self.world.settle()
        self.world.check_limits()

    @property
    def process(self) -> PostgreSQL:
        """The only server process."""
        (process,) = self.cluster.alive
        return process


def idle(client: Client) -> bool:
    session = client.session
    return session.state == ClientState.IDLE and session.server is None  # type: ignore[union-attr]


def test_a_block_after_which_nobody_knows_what_is_owed_ends_its_server() -> None:
    """A Query was sent into a COPY in it, which then failed: a ROLLBACK might be answered twice, or not at all."""
    setting = Statements()
    client = setting.client()
    setting.say(client, query("begin c1;copyin c1"))
    setting.say(client, query("row c1"))
    assert setting.cluster.processes[0].over
    assert "ROLLBACK" not in setting.cluster.processes[0].statements
    assert client.over


# -- one at a time -----------------------------------------------------------------------------------------------------


@given(st.sampled_from((1, 4, 1 << 16)), st.integers(0, 3))
def test_at_most_one_ready_for_query_is_owed(chunk: int, capacity: int) -> None:
    setting = Statements()
    setting.world.server_capacity = (None, 1, 7, 50)[capacity]
    client = setting.client()
    setting.world.chunk = chunk
    client.say(
        query("row c1") + extended("row c1 2") + SYNC + frame("F", bytes(8)) + query("fail c1") + query("row c1")
    )
    most = 0
    for _ in range(10_000):
        if sum(step() for step in setting.world.steps()) == 0:
            break
        servers = [one.server for one in setting.world.service.clients.values() if one.server is not None]
        most = max([most, *(sum(kind in b"QFS" for kind in server.owed.requests) for server in servers)])
    assert most == 1
    assert client.kinds == "TDCZ12DDCZZVZEZTDCZ"
    assert idle(client)


def test_between_two_statements_of_a_pipeline_the_server_goes_to_who_waits() -> None:
    setting = Statements()
    one, other = setting.clients(2)
    setting.say(one, query("slow c1") + query("insert c1") * 2)
    setting.say(other, query("insert c2"))
    setting.process.release()
    setting.world.settle()
    assert setting.cluster.inserted[0] == "c2"
    assert sorted(setting.cluster.inserted) == ["c1", "c1", "c2"]
    assert not setting.cluster.complaints


def test_a_flush_behind_a_statement_does_not_wait() -> None:
    setting = Statements()
    client = setting.client()
    setting.say(client, query("slow c1") + FLUSH)
    assert not client.session.held  # type: ignore[union-attr]
    setting.process.release()
    setting.world.settle()
    assert client.kinds == "TDCZ"


def test_insert_insert_terminate_and_close_in_one_segment_executes_both() -> None:
    setting = Statements()
    client = setting.client()
    client.say(query("insert c1") * 2)
    client.terminate()
    setting.world.settle()
    assert setting.cluster.inserted == ["c1", "c1"]
    assert setting.cluster.canceled == []
    assert client.session.state == ClientState.CLOSED  # type: ignore[union-attr]


# -- COPY --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (query("copyin c1") + copy_data("c1") * 3 + COPY_DONE, "GCZ"),
        (query("copyin c1") + copy_data("c1") + COPY_FAIL, "GEZ"),
        (query("copyin c1") + copy_data("c1") + COPY_DONE + query("row c1"), "GCZTDCZ"),
        (extended("copyin c1") + copy_data("c1") + COPY_DONE + SYNC, "12GCZ"),
        (extended("copyin c1", sync=False) + copy_data("c1") + COPY_DONE + SYNC + query("row c1"), "12GCZTDCZ"),
        (query("copyin c1;copyin c1") + (copy_data("c1") + COPY_DONE) * 2, "GCGCZ"),
        (query("copyout c1 3") + query("row c1"), "HdddcCZTDCZ"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 16])
@pytest.mark.parametrize("ahead", [True, False])
def test_copy_works_with_the_data_sent_ahead_and_behind(said: bytes, kinds: str, chunk: int, ahead: bool) -> None:
    setting = Statements()
    client = setting.client()
    setting.world.chunk = chunk
    if ahead:
        setting.say(client, said)
    else:
        stream = bytearray(said)
        for kind, body in cut(stream):
            setting.say(client, frame(kind, body))
    assert client.kinds == kinds
    assert idle(client)
    assert not setting.cluster.complaints


# -- transaction blocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (query("begin c1"), "EZ"),
        (query("begin c1;insert c1"), "CEZ"),
        (query("begin c1;fail c1"), "CEZ"),
        (extended("begin c1"), "12EZ"),
        (extended("begin c1", sync=False) + extended("row c1"), "12C12DEZ"),
        (extended("begin c1", sync=False) + extended("fail c1"), "12C12EZ"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_a_transaction_block_is_refused_after_rollback(said: bytes, kinds: str, chunk: int) -> None:
    """W5"""
    setting = Statements()
    client = setting.client()
    setting.world.chunk = chunk
    setting.say(client, said)
    assert client.kinds == kinds
    assert client.sqlstates == ["22012" if b"fail" in said else "0A000"]
    assert client.errors[-1].severity == "ERROR"
    assert client.received[-1] == ("Z", b"I")
    assert ("Z", b"T") not in client.received
    assert setting.process.statements[-2:] == ["ROLLBACK", "DISCARD ALL"]
    assert idle(client)
    setting.say(client, query("row c1"))
    assert client.kinds == kinds + "TDCZ"


def test_the_client_hears_nothing_of_the_refusal_before_the_rollback_is_done() -> None:
    setting = Statements()
    client = setting.client()
    setting.say(client, query("slow c1"))
    process = setting.process
    Recording(process.port)
    process.port.say(frame("C", b"BEGIN\0") + frame("Z", b"T"))
    setting.world.settle()
    assert client.kinds == ""
    process.port.say(frame("C", b"ROLLBACK\0") + frame("Z", b"I"))
    setting.world.settle()
    assert client.kinds == "EZ"


def test_begin_twice_and_commit_in_one_query_is_answered_three_times() -> None:
    setting = Statements()
    client = setting.client()
    setting.say(client, query("begin c1;begin c1;commit c1"))
    assert client.kinds == "CCCZ"


@pytest.mark.parametrize(
    "said", [query("begin c1;insert c1;commit c1"), extended("begin c1", sync=False) + extended("commit c1")]
)
def test_a_block_that_begins_and_ends_in_one_request_is_allowed(said: bytes) -> None:
    setting = Statements()
    client = setting.client()
    setting.say(client, said)
    assert client.errors == []
    assert client.received[-1] == ("Z", b"I")


@pytest.mark.parametrize(
    "pipeline",
    [
        BLOCK,
        extended("begin c1") + extended("insert c1") + extended("commit c1"),
        query("begin c1") + extended("insert c1", sync=False) + SYNC,
        query("begin c1") + query("insert c1")[:3],
        query("begin c1") + SYNC + query("insert c1"),
        BLOCK + TERMINATE,
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_a_pipelined_block_executes_nothing_and_ends_the_connection(pipeline: bytes, chunk: int) -> None:
    """W5: begin, delete, commit in a pipeline must not become a delete outside of a transaction."""
    setting = Statements()
    client = setting.client()
    setting.world.chunk = chunk
    setting.say(client, pipeline)
    assert setting.cluster.inserted == []
    assert client.kinds in ("E", "12E")
    assert client.sqlstates == ["0A000"]
    assert client.errors[0].severity == "FATAL"
    assert client.over
    assert setting.process.statements[-2:] == ["ROLLBACK", "DISCARD ALL"]
    assert setting.sizes == (1, 0, 0, 0)


@given(st.integers(0, len(BLOCK)), st.sampled_from((1, 5, 1 << 16)), st.booleans(), st.randoms(use_true_random=False))
def test_no_statement_of_a_pipelined_block_runs_outside_of_it_however_it_arrives(
    at: int, chunk: int, slow: bool, choose
) -> None:  # type: ignore[no-untyped-def]
    """What the client sent before it could know of the refusal, split anywhere, and in any order of events."""
    setting = Statements()
    client = setting.client()
    setting.world.chunk = chunk
    if slow:
        setting.world.server_capacity = 3
    client.say(BLOCK[:at])
    for _ in range(choose.randint(0, 30)):
        choose.choice(list(setting.world.steps()))()
    told = "E" in client.kinds
    client.say(BLOCK[at:])
    setting.world.settle()
    assert told or "Z" in client.kinds[:1] or setting.cluster.inserted == []
    setting.world.check_limits()


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_rollback_is_never_written_into_a_message_of_the_client(chunk: int) -> None:
    """W3: the COPY failed while the client is still sending its data."""
    setting = Statements()
    client = setting.client()
    setting.world.chunk = chunk
    setting.say(client, query("begin c1;copyin c1"))
    line = frame("d", b"c1" + b"y" * 300)
    setting.say(client, frame("d", b"bad") + line[:100])
    (server,) = setting.world.pool.busy
    assert server.state == ServerState.REFUSING
    assert setting.process.statements[-1] == "begin c1" or setting.process.statements[-1] == "copyin c1"
    setting.say(client, line[100:])
    assert client.kinds == "CGEZ"
    setting.say(client, line + COPY_DONE + query("row c1"))
    assert client.kinds == "CGEZTDCZ"
    assert not setting.cluster.complaints


def test_what_follows_the_message_that_rollback_waits_for_is_not_executed() -> None:
    """W5"""
    setting = Statements()
    client = setting.client()
    setting.say(client, query("begin c1;copyin c1"))
    line = frame("d", b"c1" + b"y" * 300)
    setting.say(client, frame("d", b"bad") + line[:100])
    setting.say(client, line[100:] + query("insert c1") + query("commit c1"))
    assert setting.cluster.inserted == []
    assert client.errors[-1].severity == "FATAL"
    assert setting.process.statements[-2:] == ["ROLLBACK", "DISCARD ALL"]


@pytest.mark.parametrize("how", [Client.leave, Client.break_off, Client.terminate])
@pytest.mark.parametrize("part", [b"", frame("d", bytes(300))[:100]])
def test_a_client_may_leave_while_its_block_is_refused(how, part: bytes) -> None:  # type: ignore[no-untyped-def]
    setting = Statements()
    one, other = setting.clients(2)
    setting.say(one, query("slow c1"))
    process = setting.process
    process.status = "T"
    setting.say(one, part)
    process.release()
    process.stalled = True
    setting.world.settle()
    assert one.session.server.state == ServerState.REFUSING  # type: ignore[union-attr]
    setting.say(other, query("row c2"))
    how(one)
    setting.world.settle()
    process.stalled = False
    setting.world.settle()
    setting.world.pass_time(31)
    assert other.rows == ["c2"]
    assert not setting.cluster.complaints


def test_a_cancel_does_not_reach_the_rollback_of_a_refusal() -> None:
    setting = Statements()
    client = setting.client()
    process = setting.process
    setting.say(client, query("slow c1"))
    process.status = "T"
    process.release()
    process.stalled = True
    setting.world.settle()
    assert client.session.server.state == ServerState.REFUSING  # type: ignore[union-attr]
    Recording(port := setting.world.accept())
    port.say(messages.cancel_request(client.process_id, client.cancel_key))
    setting.world.settle()
    assert setting.cluster.canceled == []
    process.stalled = False
    setting.world.settle()
    assert client.sqlstates == ["0A000"]


def test_a_cancel_under_way_to_a_block_does_not_meet_the_rollback_of_its_refusal() -> None:
    setting = Statements()
    client = setting.client()
    setting.say(client, query("begin c1;slow c1"))
    setting.world.hold_cancels = True
    Recording(port := setting.world.accept())
    port.say(messages.cancel_request(client.process_id, client.cancel_key))
    setting.world.settle()
    setting.process.release()
    setting.world.settle()
    assert "ROLLBACK" not in setting.process.statements
    assert client.kinds == "CTD", "it is not told before that is done"
    setting.world.answer_cancel()
    setting.world.settle()
    assert setting.process.statements[-2:] == ["ROLLBACK", "DISCARD ALL"]
    assert client.sqlstates == ["0A000"]
    assert idle(client)


def test_a_server_that_dies_during_the_rollback_is_told() -> None:
    setting = Statements()
    client = setting.client()
    setting.say(client, query("slow c1"))
    process = setting.process
    process.status = "T"
    process.release()
    process.stalled = True
    setting.world.settle()
    process.crash()
    setting.world.settle()
    assert client.errors[-1].severity == "FATAL"
    assert client.over
    setting.world.check_limits()


# -- what is not a block is as it is with a server of one's own --------------------------------------------------------


@given(
    st.lists(
        st.sampled_from(
            (
                query("row c1"),
                query("fail c1"),
                query("insert c1;fail c1"),
                query("begin c1;row c1;commit c1"),
                extended("row c1"),
                extended("row c1", sync=False),
                extended("fail c1", sync=False),
                query("copyin c1") + copy_data("c1") + COPY_DONE,
                query("copyout c1 3 20"),
                SYNC,
                FLUSH,
                COPY_DONE,
                copy_data("c1"),
                frame("F", bytes(8)),
            )
        ),
        max_size=8,
    ),
    st.sampled_from((1, 6, 1 << 16)),
    st.sampled_from((None, 1, 40)),
    st.sampled_from((PoolMode.STATEMENT, PoolMode.TRANSACTION)),
)
def test_a_client_reads_what_a_server_of_its_own_would_say(
    requests: list[bytes], chunk: int, capacity: int | None, mode: PoolMode
) -> None:
    setting = Statements(pool_mode=mode)
    setting.world.server_capacity = capacity
    client = setting.client()
    setting.world.chunk = chunk
    setting.say(client, b"".join(requests))
    assert bytes(client.after_login) == direct_transcript(bytes(client.said), "c1")
    assert not setting.cluster.complaints
