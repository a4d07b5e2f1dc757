from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_pgbench_comparison_measures_both_sides_without_a_failed_transaction() -> None:
    command = [sys.executable, "-m", "loadtests.pgbench", "--json", "--without-pgbouncer"]
    command += ["--clients", "4", "--seconds", "1", "--rounds", "1", "--protocol", "prepared", "--workload", "accounts"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert completed.returncode == 0, completed.stderr
    found = json.loads(completed.stdout)["summary"]
    assert found["direct"]["tps"] > 0
    assert found["PgPooler"]["tps"] > 0
    assert found["PgPooler"]["user"] > 0
    assert found["PgPooler"]["system"] > 0
