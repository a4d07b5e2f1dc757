"""Plays themes against a target and collects what came of every script."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from spec.codec import Instance
from spec.conformance.features import FEATURES, evidence
from spec.conformance.requests import query
from spec.conformance.scripts import FIRST, Open, Script, Theme, ask, given
from spec.conformance.shrinking import shrunk
from spec.conformance.stage import CouldNotRun, Deviation, Performance, play, unique_name
from spec.conformance.target import Target
from spec.conformance.words import error_fields

SESSIONS = 3
"""How many sessions a script of a theme that leaves something in them may have at once."""


class Result(enum.Enum):
    """What came of a script."""

    CONFORMS = "conforms"
    DEVIATES = "deviates"
    NOT_OFFERED = "not offered"
    COULD_NOT_RUN = "could not run"


@dataclass(frozen=True)
class Outcome:
    """The result of one script: why, and for a deviation the shortest script that shows it."""

    theme: str
    script: Script
    result: Result
    reason: str = ""
    deviation: Deviation | None = None
    shortest: Script | None = None
    heard: tuple[tuple[str, ...], ...] = ()
    """What was heard in each step of the shortest script."""
    words: tuple[str, ...] = ()
    """The target's errors in that script, in its own words."""
    slips: tuple[str, ...] = ()
    """Rules that the script itself broke: a fault of the suite."""


Watch = Callable[[str], None]
"""Is told, from time to time, what is going on."""


class Suite:
    """One run against a target, compared with a direct server if there is one."""

    def __init__(self, target: Target, direct: Target | None = None, watch: Watch = lambda text: None) -> None:
        self.target = target
        self.direct = direct
        self.watch = watch
        self.doing = ""
        self.left: list[str] = []
        """Tables that could not be dropped."""
        self.missing: dict[str, str] = {}
        """The features tried so far, each with the evidence that it is not offered, or nothing."""

    def problem(self) -> str:
        """Return why the target, or the direct server, cannot be examined at all; nothing if it can."""
        self.doing = "logging in"
        script = Script("a login", "protocol-flow#PROTOCOL-FLOW-START-UP", (Open(FIRST),))
        for target in (self.target, self.direct):
            if target is None:
                continue
            try:
                performance = self._played(script, target)
            except CouldNotRun as reason:
                return f"{target}: {reason}"
            if performance.deviation is not None:
                return f"{target}: {why(performance)}"
        return ""

    def run(self, themes: Iterable[Theme]) -> Iterator[Outcome]:
        """Yield the outcome of every script."""
        for theme in themes:
            for script in theme.scripts:
                self.doing = f"{theme.name}: {script.name}"
                self.watch(self.doing)
                yield self._outcome(theme.name, script)
                if theme.leaves_state:
                    self._clean()

    def _outcome(self, theme: str, script: Script) -> Outcome:
        try:
            for need in script.needs:
                if reason := self._evidence(need):
                    return Outcome(theme, script, Result.NOT_OFFERED, f"{need}: {reason}")
            performance = self._compared(script)
            slips = performance.slips
            if performance.deviation is None:
                return Outcome(theme, script, Result.CONFORMS, slips=slips)
            shortest = shrunk(script, performance.deviation, self._compared, self._directly if self.direct else None)
            last = self._compared(shortest)
        except CouldNotRun as reason:
            return Outcome(theme, script, Result.COULD_NOT_RUN, str(reason))
        if last.deviation is None:  # it comes and goes: show where it was seen
            shortest, last = script, performance
        words = tuple(words_of(message) for message in last.errors)
        deviation = last.deviation or performance.deviation
        return Outcome(theme, script, Result.DEVIATES, "", deviation, shortest, last.heard, words, slips)

    def _evidence(self, need: str) -> str:
        """Return what shows that a feature is not offered; asked once."""
        if need not in self.missing:
            (feature,) = (feature for feature in FEATURES if feature.name == need)
            self.missing[need] = evidence(feature, self._played(feature.script, self.target))
        return self.missing[need]

    def _compared(self, script: Script) -> Performance:
        """Play a script, and hold what was heard against a direct server's answers if there is one."""
        performance = self._played(script, self.target)
        if self.direct is None or script.is_own or performance.deviation is not None:
            return performance
        expected = self._directly(script)
        for step, (heard, wanted) in enumerate(zip(performance.exact, expected.exact, strict=False)):
            if heard != wanted:
                text = "a direct server answers otherwise"
                found = Deviation("direct", script.anchor, text, step, (wanted,), heard)
                return replace(performance, deviation=found)
        return performance

    def _directly(self, script: Script) -> Performance:
        assert self.direct is not None
        return self._played(script, self.direct)

    def _played(self, script: Script, target: Target) -> Performance:
        name = unique_name()
        if not script.table:
            return play(script, target, self._look, name)
        try:
            self._administer(target, f"CREATE TABLE {name} ({script.table})")
            return play(script, target, self._look, name)
        finally:
            try:
                self._administer(
                    target, f"SET LOCAL lock_timeout TO '{target.patience:g}s'; DROP TABLE IF EXISTS {name}"
                )
            except CouldNotRun:
                self.left.append(f"{name} at {target}")

    def _administer(self, target: Target, text: str) -> None:
        """Run one statement on a connection of its own; raise CouldNotRun if it fails."""
        script = Script("administration", "", (ask(query(text), answer=("ReadyForQuery",)),))
        performance = play(script, target, self._look)
        if performance.errors:
            raise CouldNotRun(f"{text}: {why(performance)}")
        if performance.deviation is not None and performance.deviation.rule != "answer":
            raise CouldNotRun(f"{text}: {performance.deviation.text}")

    def _clean(self) -> None:
        """Clear away what is left in sessions, in as many server connections as a script may have used."""
        names = [f"cleaner {number}" for number in range(SESSIONS)]
        begin = [given(query("DISCARD ALL"), answer=(), on=name) for name in names]
        end = [ask(answer=("ReadyForQuery",), on=name) for name in names]
        play(Script("cleaning", "sql-discard", (*begin, *end)), self.target, self._look)

    def _look(self) -> None:
        self.watch(self.doing)


def why(performance: Performance) -> str:
    """Return why a performance failed: the target's own words if it said something."""
    if performance.errors:
        return words_of(performance.errors[0])
    return performance.deviation.text if performance.deviation else ""


def words_of(error: Instance) -> str:
    """Return what an ErrorResponse says."""
    fields = error_fields(error)
    return f"{fields.get('C', '')} {fields.get('M', '')}".strip()
