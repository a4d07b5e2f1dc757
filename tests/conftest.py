"""What holds for all tests: the Hypothesis profiles, the header, and that in CI no test may be skipped.

Hypothesis profiles, chosen by HYPOTHESIS_PROFILE or pytest's --hypothesis-profile:
- `dev`, the default: quick, new random examples in every run, failures are remembered in .hypothesis;
- `ci`, where CI is set: more examples, the same ones in every run, so that a red run can be had again;
- `soak`: as many new examples as PGPOOLER_SOAK_EXAMPLES says (20,000), for `tox run -e soak` overnight;
- `mutation`: as many as `dev`, the same ones in every run, and no search for a smaller one, for `tox run -e mutation`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

import pgpooler
from pgpooler.implementation import description

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

# A deadline per example would be an assertion about absolute time: none.
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, database=None, print_blob=True)
SOAK_EXAMPLES = int(os.environ.get("PGPOOLER_SOAK_EXAMPLES", "20000"))
settings.register_profile("soak", max_examples=SOAK_EXAMPLES, deadline=None, print_blob=True)
settings.register_profile(
    "mutation",
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if IN_CI else "dev"))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which PgPooler is under test, how it runs, which examples Hypothesis makes, and which PostgreSQL serves."""
    lines = [
        f"pgpooler: {pgpooler.__version__}, implementation {description()}, from {os.path.dirname(pgpooler.__file__)}",
        f"hypothesis profile: {settings.get_current_profile_name()}",
    ]
    if runs_integration_tests(config):
        # Imported here, so that the other tests need neither psycopg nor a look around for PostgreSQL.
        from tests.integration import servers

        lines += servers.header()
    return lines


def runs_integration_tests(config: pytest.Config) -> bool:
    """Whether the paths on the command line take in tests/integration."""
    here = Path(__file__).parent / "integration"
    paths = [(config.invocation_params.dir / argument.split("::")[0]).resolve() for argument in config.args]
    return any(here.is_relative_to(path) or path.is_relative_to(here) for path in paths)


def pytest_configure(config: pytest.Config) -> None:
    if IN_CI and not hasattr(config, "workerinput"):  # with xdist the controller hears of every report
        config.pluginmanager.register(NothingIsSkipped(), "nothing-is-skipped")


class NothingIsSkipped:
    """Turns the run red when a test was skipped or was expected to fail: in CI everything has to run."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped or hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        if self.skipped and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return (yield)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            terminalreporter.section("skipped, and in CI that is a failure", red=True)
            for nodeid in dict.fromkeys(self.skipped):
                terminalreporter.write_line(nodeid)
