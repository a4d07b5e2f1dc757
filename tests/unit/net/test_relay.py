"""The one timer of the relay, and its end."""

from __future__ import annotations

from tests.unit.net.fakes import Bench


class Watched:
    def __init__(self, *answers: float, fails: bool = False) -> None:
        self.due = 0.0
        self.looks: list[float] = []
        self.answers = list(answers)
        self.fails = fails

    def tick(self, now: float) -> float:
        self.looks.append(now)
        if self.fails:
            raise RuntimeError("a bug")
        return self.answers.pop(0) if self.answers else 0.0


def test_without_deadlines_there_is_no_timer(bench: Bench) -> None:
    bench.relay.rearm()
    assert bench.loop.pending == []


def test_there_is_one_timer_for_the_earliest_deadline(bench: Bench) -> None:
    for when in (110.0, 105.0, 120.0):
        bench.deadlines.at(when, Watched())
        bench.relay.rearm()
    assert bench.loop.pending == [105.0]


def test_the_timer_goes_on_to_the_next_deadline(bench: Bench) -> None:
    first, second = Watched(130.0), Watched()
    bench.deadlines.at(105.0, first)
    bench.deadlines.at(110.0, second)
    bench.relay.rearm()
    bench.loop.pass_time(5)
    assert (first.looks, second.looks) == ([105.0], [])
    assert bench.loop.pending == [110.0]
    bench.loop.pass_time(5)
    assert second.looks == [110.0]
    assert bench.loop.pending == [130.0]


def test_a_deadline_that_a_wake_up_made_is_kept(bench: Bench) -> None:
    port, _, peer = bench.pair()
    watched = Watched()
    bench.deadlines.at(107.0, watched)
    peer.send(b"x")
    bench.loop.readers[bench.relay.poller.fileno()]()
    assert bench.loop.pending == [107.0]
    assert not port.closed


def test_a_bug_in_one_timeout_does_not_stop_the_others(bench: Bench) -> None:
    bad, good = Watched(fails=True), Watched()
    bench.deadlines.at(105.0, bad)
    bench.deadlines.at(105.0, good)
    bench.relay.rearm()
    bench.loop.pass_time(5)
    bench.loop.pass_time(0)
    assert [str(error) for error in bench.reports] == ["a bug"]
    assert good.looks == [105.0]


def test_at_the_end_every_socket_is_closed(bench: Bench) -> None:
    port, session, peer = bench.pair()
    bench.deadlines.at(105.0, Watched())
    bench.relay.rearm()
    bench.relay.close()
    assert port.closed
    assert session.ends == []
    assert bench.relay.ports == set()
    assert bench.loop.readers == {}
    assert bench.loop.pending == []
    assert peer.recv(1) == b""


def test_it_may_be_closed_twice(bench: Bench) -> None:
    bench.relay.close()
    bench.relay.close()
