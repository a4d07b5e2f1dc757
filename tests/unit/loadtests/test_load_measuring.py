from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from loadtests.pgbench import DIRECT, PGBOUNCER, PGPOOLER, Result, main, parse, summarise, table
from loadtests.poolers import PoolerFailed
from loadtests.processes import ProcessorTime, processor_time, with_descendants

OUTPUT = """\
transaction type: workload.sql
number of transactions actually processed: 141012
number of failed transactions: 3 (0.002%)
latency average = 0.142 ms
initial connection time = 9.510 ms
tps = 70530.123456 (without initial connection time)
"""


def test_the_figures_of_pgbench_are_read() -> None:
    assert parse(OUTPUT) == Result(transactions=141012, failed=3, tps=70530.123456, latency=0.142)


def test_output_without_figures_is_an_error() -> None:
    with pytest.raises(ValueError, match="connection refused"):
        parse("connection refused")


def test_a_run_that_was_over_before_its_first_transaction_says_what_to_do() -> None:
    with pytest.raises(PoolerFailed, match="give it more --seconds"):
        parse(re.sub("141012.*\n(.*\n)*", "0\n", OUTPUT))


def test_ratios_are_medians_of_the_ratios_within_a_round() -> None:
    rounds = [
        {DIRECT: Result(1, 0, 100, 1), PGPOOLER: Result(1, 0, 50, 2, 1.0, 9.0)},
        {DIRECT: Result(1, 0, 10, 1), PGPOOLER: Result(1, 1, 8, 2, 3.0, 9.0)},
        {DIRECT: Result(1, 0, 1000, 1), PGPOOLER: Result(1, 0, 900, 2, 2.0, 9.0)},
    ]
    figures = summarise(rounds)[PGPOOLER]
    assert figures[f"tps / {DIRECT}"] == 0.8
    assert figures["user"] == 2.0
    assert figures["failed"] == 1


def test_the_table_has_a_column_per_target_and_a_dash_for_what_was_not_measured() -> None:
    text = table(summarise([{name: Result(1, 0, 100, 1) for name in (DIRECT, PGPOOLER, PGBOUNCER)}]))
    assert text.splitlines()[0].split() == [DIRECT, PGPOOLER, PGBOUNCER]
    assert f"against {PGBOUNCER}" in text
    assert "-" in text


def test_processor_time_is_read_from_names_with_brackets_and_blanks(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 100 50 0 0 20 0 1 0")
    tick = 1_000_000 / os.sysconf("SC_CLK_TCK")
    assert processor_time([7], tmp_path) == ProcessorTime(100 * tick, 50 * tick)


def test_descendants_are_found_through_all_threads(tmp_path: Path) -> None:
    for process, thread, children in ((7, 7, "8"), (7, 71, "9 "), (8, 8, ""), (9, 9, "10"), (10, 10, "")):
        task = tmp_path / str(process) / "task" / str(thread)
        task.mkdir(parents=True)
        (task / "children").write_text(children)
    assert with_descendants(7, tmp_path) == [7, 8, 9, 10]
    assert with_descendants(99, tmp_path) == []


@pytest.mark.parametrize(
    ("command_line", "reason"),
    [
        ("--clients 11 --pool-size 10", "--pool-size"),
        ("--mode transaction --protocol prepared", "prepared"),
        ("--mode statement --protocol prepared", "prepared"),
        ("--mode statement --workload transfer", "transaction blocks"),
    ],
)
def test_what_a_pool_mode_rules_out_is_refused_before_anything_is_started(
    command_line: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command_line.split())
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err
