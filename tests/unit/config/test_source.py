"""The tree of texts: environment variables, the order of problems, and paths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.source import Place, Sources, Text

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
HERE = Place("pgpooler.yaml", 3, 4)


@given(st.text())
def test_a_text_without_references_stays_as_it_is(text: str) -> None:
    sources = Sources("pgpooler.yaml", {})
    if "${" not in text:
        assert sources.expand(Text(text, HERE)) == text
    assert sources.expand(Text(text.replace("${", "$").replace("$", "$${"), HERE)) == text.replace("${", "$").replace(
        "$", "${"
    )


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), texts, min_size=1), st.text("ab:/"))
def test_references_become_what_the_environment_says(environment: dict[str, str], between: str) -> None:
    text = between.join(f"${{{name}}}" for name in environment)
    sources = Sources("pgpooler.yaml", environment)
    assert sources.expand(Text(text, HERE)) == between.join(environment.values())


def test_every_reference_that_fails_is_reported_where_the_text_is() -> None:
    sources = Sources("pgpooler.yaml", {"C": "x"})
    assert sources.expand(Text("${A}${B}${C}${1}", HERE)) is None
    assert [str(problem).partition(": ")[0] for problem in sources.errors] == ["pgpooler.yaml:3:4"] * 3


def test_a_variable_or_a_file_name_that_is_no_text_is_refused(tmp_path) -> None:
    path = tmp_path / "pgpooler\udcff.yaml"
    path.write_text("")
    sources = Sources(str(path), {"A": "\udcff"})
    assert sources.expand(Text("${A}", HERE)) is None
    assert sources.read(sources.main) is None
    assert [problem.line for problem in sources.errors] == [3, 0]


def test_problems_stand_in_the_order_of_files_lines_and_columns(tmp_path) -> None:
    main, other = tmp_path / "main.yaml", tmp_path / "a.yaml"
    main.write_text("")
    other.write_text("")
    sources = Sources(str(main), {})
    sources.read(str(main))
    sources.read("a.yaml", Place(str(main)))
    places = [Place(str(other), 1, 1), Place(str(main), 2, 1), Place(str(main), 1, 9), Place(str(main), 1, 2)]
    for place in places:
        sources.error(place, "x")
        sources.error(place, "x")
    found = [(problem.file, problem.line, problem.column) for problem in sources.in_file_order(sources.errors)]
    assert found == [tuple(place) for place in reversed(places)]
