"""One heap for all timeouts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgpooler.pooling.deadlines import Deadlines


class Watched:
    """Something that is looked at; `answers` says when it wants to be looked at next."""

    def __init__(self, *answers: float) -> None:
        self.due = 0.0
        self.answers = list(answers)
        self.looks: list[float] = []

    def tick(self, now: float) -> float:
        self.looks.append(now)
        return self.answers.pop(0) if self.answers else 0.0


def test_nobody_is_looked_at_who_asked_for_nothing() -> None:
    deadlines, watched = Deadlines(), Watched()
    deadlines.at(0.0, watched)
    assert deadlines.next() == 0.0
    deadlines.expire(1e9)
    assert watched.looks == []


def test_a_target_is_looked_at_when_its_time_has_come_and_not_before() -> None:
    deadlines, watched = Deadlines(), Watched()
    deadlines.at(5.0, watched)
    assert deadlines.next() == 5.0
    deadlines.expire(4.9)
    assert watched.looks == []
    deadlines.expire(5.0)
    assert watched.looks == [5.0]
    assert deadlines.next() == 0.0


def test_the_earlier_of_two_times_counts() -> None:
    deadlines, watched = Deadlines(), Watched()
    deadlines.at(5.0, watched)
    deadlines.at(3.0, watched)
    deadlines.at(4.0, watched)
    assert deadlines.next() == 3.0
    deadlines.expire(10.0)
    assert len(watched.looks) == 1


def test_a_target_says_when_it_wants_to_be_looked_at_next() -> None:
    deadlines, watched = Deadlines(), Watched(8.0, 0.0)
    deadlines.at(5.0, watched)
    deadlines.expire(6.0)
    assert deadlines.next() == 8.0
    deadlines.expire(9.0)
    assert watched.looks == [6.0, 9.0]
    assert deadlines.next() == 0.0


def test_a_forgotten_target_is_not_looked_at() -> None:
    deadlines, watched = Deadlines(), Watched()
    deadlines.at(5.0, watched)
    deadlines.forget(watched)
    deadlines.forget(watched)
    assert deadlines.next() == 0.0
    deadlines.expire(10.0)
    assert watched.looks == []


def test_who_asks_for_now_is_looked_at_once_in_each_call() -> None:
    """Otherwise one rounding error in one target's arithmetic stops the event loop for ever."""
    deadlines, watched = Deadlines(), Watched(*[5.0] * 1000)
    deadlines.at(5.0, watched)
    deadlines.expire(5.0)
    assert watched.looks == [5.0]
    assert deadlines.next() == 5.0
    deadlines.expire(5.0)
    assert watched.looks == [5.0, 5.0]


def test_a_thousand_forgotten_targets_do_not_fill_the_heap() -> None:
    deadlines = Deadlines()
    kept = Watched()
    deadlines.at(7.0, kept)
    for number in range(1000):
        target = Watched()
        deadlines.at(5.0 + number, target)
        deadlines.forget(target)
    assert len(deadlines._heap) < 300
    deadlines.expire(10_000.0)
    assert kept.looks == [10_000.0]


actions = st.lists(
    st.one_of(
        st.tuples(st.just("at"), st.integers(0, 4), st.integers(1, 30)),
        st.tuples(st.just("forget"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("pass"), st.integers(0, 10), st.just(0)),
    ),
    max_size=40,
)


@given(actions)
def test_everybody_is_looked_at_once_at_the_earliest_time_asked_for(script: list[tuple[str, int, int]]) -> None:
    deadlines = Deadlines()
    targets = [Watched() for _ in range(5)]
    wanted: dict[int, float] = {}
    looks: dict[int, list[float]] = {number: [] for number in range(5)}
    now = 0.0
    for action, number, when in script:
        if action == "at":
            time = now + when
            deadlines.at(time, targets[number])
            wanted[number] = min(wanted.get(number, time), time)
        elif action == "forget":
            deadlines.forget(targets[number])
            wanted.pop(number, None)
        else:
            now += number
            deadlines.expire(now)
            for target, time in list(wanted.items()):
                if time <= now:
                    looks[target].append(now)
                    del wanted[target]
        assert deadlines.next() == min(wanted.values(), default=0.0)
        assert [target.looks for target in targets] == list(looks.values())
