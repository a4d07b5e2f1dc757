from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgpooler.config.load import load
from pgpooler.config.routing import Router

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration that the README shows, with its secrets in place."""
    (tmp_path / "secret").write_text("s3cret\n", encoding="utf-8")
    monkeypatch.setenv("ALICE_PASSWORD", "wonderland")
    found = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    file = tmp_path / "pgpooler.yaml"
    file.write_text(found[1].replace("/run/secrets/etl_night", "secret"), encoding="utf-8")
    return file


def test_the_configuration_in_the_readme_is_valid(example: Path) -> None:
    assert load(example).warnings == ()


@pytest.mark.parametrize(
    ("user", "database", "backend", "pool_size"),
    [
        ("bi", "reporting", "replica", 5),
        ("alice", "reporting_eu", "replica", 20),
        ("alice", "shop", "primary", 20),
    ],
)
def test_the_configuration_in_the_readme_routes_as_it_reads(
    example: Path, user: str, database: str, backend: str, pool_size: int
) -> None:
    route = Router(load(example).configuration).route(user, database)
    assert route is not None
    assert (route.backend.name, route.pool_size) == (backend, pool_size)


def test_every_link_in_the_documents_leads_somewhere() -> None:
    documents = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    documents += (ROOT / "docs").rglob("*.md")
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert broken == []
