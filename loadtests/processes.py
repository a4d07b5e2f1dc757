"""Processor time of processes, from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MICROSECONDS_PER_TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessorTime:
    """Time on a processor in microseconds: in the program itself, and in the kernel on its behalf."""

    user: float = 0.0
    system: float = 0.0

    def __add__(self, other: ProcessorTime) -> ProcessorTime:
        return ProcessorTime(self.user + other.user, self.system + other.system)

    def __sub__(self, other: ProcessorTime) -> ProcessorTime:
        return ProcessorTime(self.user - other.user, self.system - other.system)


def with_descendants(process: int, proc: Path = Path("/proc")) -> list[int]:
    """A process id and those of its children, their children and so on; empty if the process is gone."""
    found: list[int] = []
    waiting = [process]
    while waiting:
        number = waiting.pop()
        try:
            tasks = list((proc / str(number) / "task").iterdir())
            children = [child for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue
        found.append(number)
        waiting.extend(int(child) for child in children)
    return sorted(found)


def processor_time(processes: Iterable[int], proc: Path = Path("/proc")) -> ProcessorTime:
    """The time that these processes have used since they started (manual page proc(5): utime, stime)."""
    total = ProcessorTime()
    for number in processes:
        text = (proc / str(number) / "stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()  # the program's name may hold spaces and brackets
        total += ProcessorTime(int(fields[11]) * MICROSECONDS_PER_TICK, int(fields[12]) * MICROSECONDS_PER_TICK)
    return total
