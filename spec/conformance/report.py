"""What a run found, for people and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from spec.conformance.scripts import MANUAL, Answer, Script, Theme
from spec.conformance.suite import Outcome, Result
from spec.conformance.words import shortened

FORMAT = 1
"""The number of the JSON format."""


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """Return 0 if the target conforms, 1 if it deviates, 2 if a script could not run or nothing was examined."""
    results = {outcome.result for outcome in outcomes}
    if Result.DEVIATES in results:
        return 1
    return 2 if Result.COULD_NOT_RUN in results or Result.CONFORMS not in results else 0


def table(themes: Sequence[Theme], outcomes: Sequence[Outcome]) -> list[str]:
    """Return an aligned table: a line for each theme, and one for all."""
    heads = ["theme", "scripts", *(result.value for result in Result)]
    lines = [heads]
    for name in (*(theme.name for theme in themes), ""):
        counts = Counter(outcome.result for outcome in outcomes if name in ("", outcome.theme))
        numbers = [counts.total(), *(counts[result] for result in Result)]
        lines.append([name or "all", *map(str, numbers)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]


def details(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what is to be said about every script that did not conform."""
    lines: list[str] = []
    for result in (Result.DEVIATES, Result.COULD_NOT_RUN, Result.NOT_OFFERED):
        found = [outcome for outcome in outcomes if outcome.result is result]
        if found:
            lines += ["", f"{result.value.capitalize()}:"]
        for outcome in found:
            reason = f" ({outcome.reason})" if outcome.reason else ""
            lines.append(f"  {outcome.theme}: {outcome.script.name}{reason}")
            lines += deviation_lines(outcome) if result is Result.DEVIATES else []
    return lines


def deviation_lines(outcome: Outcome) -> list[str]:
    """Return where the target deviated, what the manual says, and the shortest script that shows it."""
    deviation, script = outcome.deviation, outcome.shortest
    assert deviation is not None
    assert script is not None
    rule = f"{deviation.rule}: {deviation.text}"
    lines = [f"    {rule}", f"    {MANUAL}{with_html(deviation.anchor)}"]
    for index, answer in enumerate(deviation.wanted):
        lines.append(f"    {'or      ' if index else 'expected'}  {listed(answer)}")
    if deviation.wanted or deviation.heard:
        lines.append(f"    heard     {listed(deviation.heard)}")
    lines += [f"    in words  {shortened(words)}" for words in dict.fromkeys(outcome.words)]
    lines.append("    shortest script:")
    for number, (step, heard) in enumerate(
        zip(script.steps, [*outcome.heard, *[()] * len(script.steps)], strict=False), 1
    ):
        lines.append(f"      {number}. {step.on}: {step}" + (f" -> {listed(heard)}" if heard else ""))
    return lines


def listed(answer: Answer) -> str:
    """Return messages in a row."""
    return shortened(", ".join(answer)) or "nothing"


def with_html(anchor: str) -> str:
    """Return an anchor of the manual as part of an address."""
    page, _, place = anchor.partition("#")
    return f"{page}.html" + (f"#{place}" if place else "")


def as_json(target: str, direct: str | None, themes: Sequence[Theme], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return everything for machines."""
    return {
        "conformance": FORMAT,
        "target": target,
        "direct": direct,
        "status": exit_status(outcomes),
        "themes": {
            theme.name: {
                result.value: sum(outcome.theme == theme.name and outcome.result is result for outcome in outcomes)
                for result in Result
            }
            for theme in themes
        },
        "scripts": [script_json(outcome) for outcome in outcomes],
    }


def script_json(outcome: Outcome) -> dict[str, Any]:
    """Return one script's result."""
    entry: dict[str, Any] = {
        "theme": outcome.theme,
        "name": outcome.script.name,
        "anchor": outcome.script.anchor,
        "result": outcome.result.value,
    }
    if outcome.reason:
        entry["reason"] = outcome.reason
    if outcome.deviation is not None and outcome.shortest is not None:
        entry["deviation"] = {
            "rule": outcome.deviation.rule,
            "anchor": outcome.deviation.anchor,
            "text": outcome.deviation.text,
            "expected": [list(answer) for answer in outcome.deviation.wanted],
            "heard": list(outcome.deviation.heard),
            "words": list(outcome.words),
            "shortest": steps_json(outcome.shortest, outcome.heard),
        }
    return entry


def steps_json(script: Script, heard: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return the steps of a script, each with what was heard."""
    answers = [*heard, *[()] * len(script.steps)]
    return [
        {"connection": step.on, "does": str(step), "heard": list(answer)}
        for step, answer in zip(script.steps, answers, strict=False)
    ]
