"""node-postgres through PgPooler, where node and npm are installed; pytest's header says where they are not.

The package comes from npm's registry, in the version that tests/integration/node/package-lock.json holds, into a folder
that is gone after the run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.drivers.targets import CROWD, Both, Target
from tests.integration.servers import node_is_here

SOURCE = Path(__file__).parents[1] / "node"
TABLE = (
    "CREATE TABLE things (owner int, number int, line text, data bytea, facts jsonb, moment timestamptz,"
    " PRIMARY KEY (owner, number))"
)

__test__ = node_is_here()


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script of the tests, with node-postgres installed beside it."""
    directory = tmp_path_factory.mktemp("node")
    for path in SOURCE.iterdir():
        if path.is_file():
            shutil.copy(path, directory)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    installed = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    assert installed.returncode == 0, installed.stderr
    return directory / "work.mjs"


def test_a_crowd_with_node_postgres_finds_what_it_wrote_and_hears_what_it_listens_for(
    program: Path, in_transaction_mode: Both
) -> None:
    in_transaction_mode.prepare(TABLE)

    def work(target: Target) -> Any:
        command = ["node", str(program), target.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert in_transaction_mode.alike(work) == {
        "found": [[[owner, number] for number in range(10)] for owner in range(CROWD)],
        "sums": [number * 3 for number in range(50)],
        "heard": [f"number {number}" for number in range(5)],
    }
