"""The load scripts: they measure what they say, in every pool mode."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODES = {
    "session": ("--clients", "4", "--protocol", "prepared", "--workload", "accounts"),
    "transaction": ("--clients", "30", "--pool-size", "5", "--workload", "accounts", "--protocol", "extended"),
    "statement": ("--clients", "30", "--pool-size", "5", "--protocol", "simple"),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_pgbench_comparison_measures_both_sides_without_a_failed_transaction(mode: str) -> None:
    command = [sys.executable, "-m", "loadtests.pgbench", "--json", "--without-pgbouncer", "--mode", mode]
    command += ["--seconds", "3", "--rounds", "1", *MODES[mode]]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert completed.returncode == 0, completed.stderr
    found = json.loads(completed.stdout)["summary"]
    assert found["direct"]["tps"] > 0
    assert found["PgPooler"]["tps"] > 0
    assert found["PgPooler"]["failed"] == 0
    assert found["PgPooler"]["user"] > 0
    assert found["PgPooler"]["system"] > 0
