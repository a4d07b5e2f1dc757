"""What is not certain yet: requests whose replies have not come."""

from __future__ import annotations

import pytest

from pgpooler.pooling.expected import GOES_ON, Expected
from pgpooler.pooling.owed import Owed
from pgpooler.pooling.pending import Pending
from pgpooler.protocol import codes


class Noted(Expected):
    """A reply that notes what becomes of it."""

    __slots__ = ("became",)

    def __init__(self, kind: int = codes.PARSE_COMPLETE) -> None:
        super().__init__(kind, GOES_ON)
        self.became = ""

    def come(self) -> None:
        self.became += "come "

    def undo(self) -> None:
        self.became += "undone " if not self.first else "undone first "


class Batches:
    """A client that sends batches, and a server that answers them."""

    def __init__(self) -> None:
        self.owed = Owed()
        self.pending = Pending(self.owed)

    def ask(self, *touched: str) -> Noted:
        """A request of the batch that is being sent."""
        self.pending.request()
        self.owed.sent(codes.PARSE)
        self.pending.expect(expected := Noted(), *touched)
        return expected

    def sync(self) -> None:
        self.owed.sent(codes.SYNC)

    def error(self) -> None:
        self.owed.error()
        self.pending.error()

    def ready(self) -> None:
        assert self.owed.ready()
        self.pending.ready()


@pytest.fixture
def batches() -> Batches:
    return Batches()


def test_replies_come_in_the_order_of_the_requests(batches: Batches) -> None:
    first, second = batches.ask(), batches.ask()
    assert batches.pending.watches
    assert batches.pending.reply(codes.PARSE_COMPLETE, b"") == GOES_ON
    assert (first.became, second.became) == ("come ", "")
    batches.pending.reply(codes.PARSE_COMPLETE, b"")
    assert second.became == "come "
    assert not batches.pending.watches


def test_an_error_undoes_what_is_left_of_its_batch_and_nothing_behind_it(batches: Batches) -> None:
    done, failed, skipped = batches.ask(), batches.ask(), batches.ask()
    batches.sync()
    behind = batches.ask()
    batches.sync()
    batches.pending.reply(codes.PARSE_COMPLETE, b"")
    batches.error()
    assert [one.became for one in (done, failed, skipped, behind)] == ["come ", "undone first ", "undone ", ""]
    batches.ready()
    batches.error()
    assert behind.became == "undone first "


def test_what_was_not_answered_when_the_server_is_ready_was_skipped(batches: Batches) -> None:
    """Where a COPY has eaten the Sync of a batch, an error may have been of the next one."""
    skipped = batches.ask()
    batches.sync()
    behind = batches.ask()
    batches.sync()
    batches.ready()
    assert (skipped.became, behind.became) == ("undone first ", "")


def test_in_doubt_nothing_is_taken_for_skipped(batches: Batches) -> None:
    asked = batches.ask()
    batches.sync()
    batches.owed.doubt = "a COPY failed"
    batches.ready()
    assert asked.became == ""
    assert not batches.pending.clear(), "nobody knows what has become of it"
    assert batches.pending.clear()


def test_what_a_batch_touches_is_unsettled_for_those_behind_it_until_it_is_answered(batches: Batches) -> None:
    batches.ask("name")
    assert not batches.pending.unsettled("name"), "the same batch is skipped if it fails"
    batches.sync()
    assert batches.pending.unsettled("name")
    assert not batches.pending.unsettled("another")
    batches.ready()
    assert not batches.pending.unsettled("name")


def test_a_request_is_alone_when_nothing_stands_between_it_and_the_last_expected_reply(batches: Batches) -> None:
    batches.ask()
    assert batches.pending.alone
    batches.pending.alone = False  # an Execute
    batches.pending.request()
    assert not batches.pending.alone
    batches.sync()
    batches.pending.request()
    assert batches.pending.alone, "the first of its batch"
