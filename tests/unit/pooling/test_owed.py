"""What a server still owes: each rule of the manual that the queue encodes, and the whole against a model server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgpooler.pooling.owed import Owed
from pgpooler.protocol import codes
from tests.memory import MemoryPort, World, configure
from tests.scripted import (
    COPY_DONE,
    COPY_FAIL,
    FLUSH,
    SYNC,
    Cluster,
    PostgreSQL,
    copy_data,
    cut,
    extended,
    frame,
    query,
)

QUERY, PARSE, BIND, EXECUTE = codes.QUERY, codes.PARSE, codes.BIND, codes.EXECUTE


def owing(*kinds: int) -> Owed:
    owed = Owed()
    for kind in kinds:
        owed.sent(kind)
    return owed


def test_at_first_nothing_is_owed() -> None:
    assert Owed().nothing
    assert not Owed().open_batch


def test_a_query_is_owed_until_its_ready_for_query() -> None:
    owed = owing(QUERY)
    assert not owed.nothing
    assert owed.ready()
    assert owed.nothing


def test_a_function_call_is_owed_until_its_ready_for_query() -> None:
    owed = owing(codes.FUNCTION_CALL)
    assert owed.ready()
    assert owed.nothing


def test_what_will_be_answered_without_a_further_word_is_complete() -> None:
    assert not Owed().complete
    assert owing(QUERY).complete
    assert not owing(QUERY, PARSE).complete, "the Sync is missing"
    copying = owing(QUERY)
    copying.copy_in_response()
    assert not copying.complete, "the data is missing"
    copying.sent(QUERY)
    copying.sent(codes.COPY_DONE)
    assert copying.doubt
    assert not copying.complete, "nobody knows what will be answered"


def test_pipelined_queries_are_owed_one_by_one() -> None:
    """W6: the connection is not free at the first ReadyForQuery of two."""
    owed = owing(QUERY, QUERY)
    assert owed.ready()
    assert not owed.nothing
    assert owed.ready()
    assert owed.nothing


def test_a_ready_for_query_nobody_asked_for_is_told_apart() -> None:
    assert not Owed().ready()


def test_a_batch_is_owed_until_the_ready_for_query_of_its_sync() -> None:
    owed = owing(PARSE, BIND, EXECUTE)
    assert owed.open_batch
    owed.sent(codes.SYNC)
    assert not owed.open_batch
    assert owed.ready()
    assert owed.nothing


def test_flush_and_copy_data_are_owed_nothing() -> None:
    assert owing(codes.FLUSH, codes.COPY_DATA).nothing


def test_after_an_error_in_a_batch_the_server_skips_to_the_sync() -> None:
    owed = owing(PARSE, BIND)
    owed.error()
    assert owed.skipping
    assert not owed.nothing
    owed.sent(EXECUTE)
    owed.sent(QUERY)
    assert not owed.requests, "what the server skips is not owed"
    owed.sent(codes.SYNC)
    assert not owed.skipping
    assert owed.ready()
    assert owed.nothing


def test_an_error_in_a_batch_whose_sync_was_sent_leaves_its_ready_for_query_owed() -> None:
    owed = owing(PARSE, codes.SYNC, QUERY)
    owed.error()
    assert not owed.skipping
    assert owed.ready()
    assert not owed.nothing
    assert owed.ready()
    assert owed.nothing


def test_an_error_in_a_query_leaves_its_ready_for_query_owed() -> None:
    owed = owing(QUERY)
    owed.error()
    assert not owed.nothing
    assert owed.ready()
    assert owed.nothing


def test_an_error_of_a_query_behind_a_batch_without_sync_leaves_doubt() -> None:
    owed = owing(PARSE, QUERY)
    owed.error()
    assert owed.doubt
    assert not owed.nothing


def test_an_open_copy_is_owed_the_end_of_its_data() -> None:
    owed = owing(QUERY)
    owed.copy_in_response()
    assert owed.copy_in
    owed.sent(codes.COPY_DONE)
    assert not owed.copy_in
    assert not owed.nothing
    assert owed.ready()
    assert owed.nothing


def test_a_copy_whose_end_was_sent_before_its_response_is_over_at_once() -> None:
    owed = owing(QUERY, codes.COPY_DONE, QUERY)
    owed.copy_in_response()
    assert not owed.copy_in
    assert owed.ready()
    assert owed.ready()
    assert owed.nothing


def test_copy_done_outside_copy_means_nothing() -> None:
    assert owing(codes.COPY_DONE, codes.COPY_FAIL).nothing
    owed = owing(QUERY, codes.COPY_FAIL)
    assert owed.ready()
    assert owed.nothing


def test_an_open_copy_eats_syncs_sent_into_it() -> None:
    owed = owing(PARSE, BIND, EXECUTE)
    owed.copy_in_response()
    owed.sent(codes.SYNC)
    owed.sent(codes.COPY_DONE)
    owed.sent(codes.SYNC)
    assert owed.ready()
    assert owed.nothing


def test_an_open_copy_eats_syncs_sent_before_its_response() -> None:
    owed = owing(PARSE, BIND, EXECUTE, codes.SYNC)
    owed.copy_in_response()
    owed.sent(codes.COPY_DONE)
    assert owed.open_batch
    owed.sent(codes.SYNC)
    assert owed.ready()
    assert owed.nothing


def test_a_batch_that_ends_in_copy_done_still_wants_a_sync() -> None:
    assert owing(PARSE, BIND, EXECUTE, codes.COPY_DONE).open_batch


def test_a_copy_that_fails_with_a_sync_in_it_leaves_doubt() -> None:
    owed = owing(PARSE, codes.SYNC)
    owed.copy_in_response()
    owed.error()
    assert owed.doubt
    assert not owed.nothing


def test_a_copy_that_fails_with_a_sync_sent_into_it_later_leaves_doubt() -> None:
    """The server read that Sync before it failed, or reads it as the end of the batch: nobody can tell."""
    owed = owing(PARSE, BIND, EXECUTE)
    owed.copy_in_response()
    owed.sent(codes.SYNC)
    owed.error()
    assert owed.doubt


def test_a_copy_that_fails_by_itself_leaves_none() -> None:
    owed = owing(QUERY)
    owed.copy_in_response()
    owed.error()
    owed.sent(codes.COPY_DONE)  # the client had not seen the error yet
    assert owed.ready()
    assert owed.nothing


def test_a_request_into_an_open_copy_leaves_doubt() -> None:
    owed = owing(QUERY)
    owed.copy_in_response()
    owed.sent(QUERY)
    assert owed.doubt


def test_a_batch_that_goes_on_behind_the_end_of_a_copy_leaves_doubt() -> None:
    """Which of the two batches began the COPY cannot be seen, and so not whether the server still reads data."""
    owed = owing(PARSE, BIND, EXECUTE, codes.COPY_DONE, BIND, EXECUTE, codes.SYNC)
    owed.copy_in_response()
    assert owed.doubt


def test_a_copy_nobody_asked_for_leaves_doubt() -> None:
    owed = Owed()
    owed.copy_in_response()
    assert owed.doubt


def test_it_can_be_read_by_people() -> None:
    owed = owing(PARSE, codes.SYNC)
    owed.doubt = "whatever"
    assert repr(owed) == "<Owed PS doubt>"
    assert repr(Owed()) == "<Owed nothing >"


# -- against a model of the server -------------------------------------------------------------------------------------

BATCHES = [extended(text, sync=sync) for text in ("row x", "fail x", "copyin x", "copyout x") for sync in (True, False)]
QUERIES = [
    query(text)
    for text in ("row x", "fail x", "row x;fail x;row x", "copyin x", "copyin x;row x;copyin x", "", "copyout x")
]
PARTS = [
    *BATCHES,
    *QUERIES,
    query("copyin x") + copy_data("x") + COPY_DONE,
    extended("copyin x", sync=False) + copy_data("x") + COPY_DONE + SYNC,
    extended("copyin x") + copy_data("x") + COPY_FAIL + SYNC,
    extended("insert x", sync=False) + extended("row x"),
    frame("P", b"\0bad\0\0\0"),
    frame("F", bytes(8)),
    frame("C", b"S\0"),
    copy_data("x"),
    frame("d", b"bad"),
    COPY_DONE,
    COPY_FAIL,
    SYNC,
    FLUSH,
]


class Model:
    """A server, and the queue that is told what goes there and what comes back, each with a delay."""

    def __init__(self) -> None:
        self.port = MemoryPort(World(configure()), "server")
        self.server = PostgreSQL(Cluster(), self.port, 1)
        self.server.receive(b"\0\0\0\x10\0\3\0\0user\0x\0\0")
        self.port.incoming.clear()
        self.owed = Owed()
        self.on_their_way = bytearray()

    def send(self, requests: bytes) -> None:
        for kind, body in cut(bytearray(requests)):
            self.owed.sent(ord(kind))
            self.on_their_way += frame(kind, body)

    def arrive(self, count: int) -> None:
        """The server reads up to that many messages."""
        messages = list(cut(self.on_their_way))
        self.on_their_way += b"".join(frame(kind, body) for kind, body in messages[count:])
        self.server.receive(b"".join(frame(kind, body) for kind, body in messages[:count]))

    def come_back(self, count: int) -> None:
        """We read up to that many messages of the server."""
        for _ in range(count):
            message = next(cut(self.port.incoming), None)
            if message is None:
                return
            if message[0] == "Z":
                assert self.owed.ready() or self.owed.doubt
            elif message[0] == "E":
                self.owed.error()
            elif message[0] == "G":
                self.owed.copy_in_response()

    def settle(self) -> None:
        self.arrive(1 << 20)
        self.come_back(1 << 20)


def test_a_batch_sent_into_the_copy_of_a_query_is_not_part_of_it() -> None:
    """The COPY fails of it, and the server skips what follows, or not: nobody can tell."""
    owed = owing(QUERY, PARSE)
    owed.copy_in_response()
    assert owed.doubt


@given(
    st.lists(
        st.tuples(st.sampled_from(PARTS), st.integers(0, 6), st.integers(0, 6)),
        max_size=12,
    )
)
def test_nothing_is_owed_exactly_when_the_server_owes_nothing(script: list[tuple[bytes, int, int]]) -> None:
    model = Model()
    owed = model.owed
    for requests, arriving, returning in script:
        model.send(requests)
        model.arrive(arriving)
        model.come_back(returning)
        if owed.nothing:
            assert not model.port.incoming or not any(kind in "ZG" for kind, _ in cut(bytearray(model.port.incoming)))
    model.settle()
    if not owed.doubt:
        copying = model.server.running.gi_yieldfrom is not None
        assert owed.copy_in == copying
    # Whatever was left half asked, ending it makes everything even: or else there is doubt.
    if owed.copy_in:
        model.send(COPY_FAIL)
        model.settle()
    if owed.skipping or owed.open_batch:
        model.send(SYNC)
        model.settle()
    assert owed.nothing or owed.doubt, owed


# -- a COPY that may begin at any time ---------------------------------------------------------------------------------


def beginning(kind: int, *before: int) -> Owed:
    owed = owing(*before)
    owed.begins_copy(kind)
    owed.sent(kind)
    return owed


def test_a_query_may_begin_a_copy_until_its_ready_for_query() -> None:
    owed = beginning(QUERY)
    assert owed.may_copy
    owed.copy_in_response()
    owed.sent(codes.COPY_DONE)
    assert owed.may_copy, "it may have another one"
    owed.error()
    assert owed.may_copy, "the ReadyForQuery is still to come"
    assert owed.ready()
    assert not owed.may_copy


def test_an_execute_may_begin_a_copy_until_it_does_or_fails() -> None:
    begun, failed = beginning(EXECUTE, PARSE, BIND), beginning(EXECUTE, PARSE, BIND)
    assert begun.may_copy
    begun.copy_in_response()
    assert not begun.may_copy
    failed.error()
    assert not failed.may_copy
    assert failed.skipping


def test_what_is_answered_before_says_nothing_about_a_copy() -> None:
    owed = beginning(EXECUTE, QUERY)
    owed.error()
    assert owed.ready()
    assert owed.may_copy


def test_nothing_may_copy_once_all_is_settled() -> None:
    owed = beginning(EXECUTE, PARSE)
    owed.settle()
    assert not owed.may_copy


def test_the_copy_of_a_query_in_place_of_a_sync_is_not_taken_for_one_of_the_batch() -> None:
    owed = beginning(QUERY, PARSE, BIND, EXECUTE)
    owed.copy_in_response()
    assert not owed.doubt
    owed.sent(codes.COPY_DONE)
    assert owed.ready()
    assert owed.nothing


def test_a_request_sent_into_the_copy_of_a_batch_is_skipped_for_certain() -> None:
    """Either the COPY fails of it, or has failed before: what follows is skipped up to the Sync."""
    owed = beginning(EXECUTE, PARSE, BIND)
    owed.copy_in_response()
    for kind in (QUERY, PARSE, codes.SYNC):
        owed.sent(kind)
    owed.error()
    assert not owed.doubt
    assert owed.ready()
    assert owed.nothing


def test_a_request_behind_a_sync_in_the_copy_of_a_batch_may_be_run() -> None:
    owed = beginning(EXECUTE, PARSE, BIND)
    owed.copy_in_response()
    owed.sent(codes.SYNC)
    owed.sent(PARSE)
    assert owed.doubt
    assert not owed.skipping


def test_in_doubt_nobody_waits_for_a_copy() -> None:
    owed = owing(QUERY)
    owed.copy_in_response()
    owed.sent(QUERY)
    owed.begins_copy(QUERY)
    owed.sent(QUERY)
    assert owed.doubt
    assert not owed.may_copy


def test_the_end_of_one_copy_is_not_taken_for_that_of_the_next_in_its_batch() -> None:
    owed = beginning(EXECUTE, PARSE, BIND)
    owed.copy_in_response()
    for kind in (codes.COPY_DONE, codes.COPY_DONE, PARSE, BIND):
        owed.sent(kind)
    owed.begins_copy(EXECUTE)
    owed.sent(EXECUTE)
    owed.copy_in_response()
    assert owed.copy_in
    assert not owed.doubt
    owed.sent(codes.COPY_DONE)
    owed.sent(codes.SYNC)
    assert owed.ready()
    assert owed.nothing
