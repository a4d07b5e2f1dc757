"""The form of PgBouncer's userlist.txt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.source import Sources
from pgpooler.config.userlist import parse_userlist

texts = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=10)


def parse(text: str) -> tuple[list[tuple[str, str]], list[str]]:
    sources = Sources("pgpooler.yaml", {})
    users = [(user.name, user.secret) for user in parse_userlist(text, "users.txt", sources)]
    return users, [str(problem) for problem in sources.errors]


@given(st.lists(st.tuples(texts.filter(bool), texts), max_size=5))
def test_names_and_secrets_come_back_as_they_were_quoted(users: list[tuple[str, str]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    text = "\n".join(f"{quoted(name)} {quoted(secret)}" for name, secret in users)
    assert parse(text) == (users, [])


def test_comments_blank_lines_and_carriage_returns_are_passed_over() -> None:
    assert parse('; a comment\r\n\r\n  "alice"\t"secret" ; another\r\n"bob" "md5abc"\n') == (
        [("alice", "secret"), ("bob", "md5abc")],
        [],
    )


def test_every_line_that_cannot_be_read_is_reported_with_its_place() -> None:
    users, problems = parse('alice "x"\n"bob"\n"carol" "x" "y"\n"dave" "x\n"" "x"\n"eve" "good"\n')
    assert users == [("eve", "good")]
    places = [problem.split(": ")[0] for problem in problems]
    assert places == ["users.txt:1:1", "users.txt:2:1", "users.txt:3:13", "users.txt:4:8", "users.txt:5:1"]


@given(st.text())
def test_any_text_gives_users_or_problems(text: str) -> None:
    users, problems = parse(text)
    lines = [line for line in text.split("\n") if line.strip(" \t\r") and not line.strip(" \t\r").startswith(";")]
    assert len(users) + len(problems) == len(lines)
