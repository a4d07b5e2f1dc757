"""The files in compose/ are those of the demonstration, and PgPooler can read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgpooler.config.load import load
from pgpooler.config.routing import Router
from pgpooler.demo import compose, scenario

DIRECTORY = Path(__file__).parents[3] / "compose"


def test_the_committed_files_are_those_that_the_scenario_makes() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.iterdir()}
    assert committed == compose.files(), "run: python -m pgpooler.demo.compose write compose"


def test_writing_the_files_gives_the_same_files(tmp_path: Path) -> None:
    assert compose.main(["write", str(tmp_path)]) == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == compose.files()


def test_the_configuration_is_read_without_warnings_and_with_the_seeds_pool_sizes() -> None:
    loaded = load(DIRECTORY / "pgpooler.yaml")
    assert not loaded.warnings
    sizes = {backend.name: backend.pool_size for backend in loaded.configuration.backends}
    assert sizes == {"primary": 10, "replica": 20}


@pytest.mark.parametrize("case", scenario.routing_cases(), ids=lambda case: f"{case.user}-{case.database}")
def test_each_case_is_routed_to_the_expected_backend(case: scenario.RoutingCase) -> None:
    route = Router(load(DIRECTORY / "pgpooler.yaml").configuration).route(case.user, case.database)
    assert route is not None
    assert route.backend.name == case.expected


def test_only_the_rule_for_the_user_leads_the_reader_to_its_last_database() -> None:
    router = Router(load(DIRECTORY / "pgpooler.yaml").configuration)
    reader, other = router.route(scenario.READER, "misc"), router.route("postgres", "misc")
    assert reader is not None
    assert other is not None
    assert (reader.rule_name, reader.backend.name) == ("reader", scenario.REPLICA)
    assert other.backend.name == scenario.PRIMARY


@pytest.mark.parametrize("arguments", [[], ["check"], ["check", "localhost"], ["explode"]])
def test_a_wrong_call_is_answered_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert compose.main(arguments) == 2
    assert "python -m pgpooler.demo.compose" in capsys.readouterr().err
