"""A bench for every test of ports and poller."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.net.fakes import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()
