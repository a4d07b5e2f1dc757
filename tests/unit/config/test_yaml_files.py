"""The YAML form: four files or inline parts, texts as they were written, and every problem at its place."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.load import load
from pgpooler.config.model import Configuration
from pgpooler.errors import ConfigurationError

MAIN = """
logging: {path: logging.yaml}
backends: {path: backends.yaml}
routing: {path: routing.yaml}
auth: {method: trust}
"""
FILES = {
    "logging.yaml": "level: debug\n",
    "backends.yaml": "backends:\n  - {name: primary, host: pg1}\n",
    "routing.yaml": "defaults: {pool_size: 7}\nrouting:\n  - {default: true, backend: primary}\n",
}
INLINE = """
logging: {level: debug}
backends:
  - {name: primary, host: pg1}
routing:
  defaults: {pool_size: 7}
  rules:
    - {default: true, backend: primary}
auth: {method: trust}
"""


def without_places(configuration: Configuration) -> str:
    rules = [(rule.default, rule.backend) for rule in configuration.routing.rules]
    return repr((configuration.logging, configuration.backends, configuration.routing.defaults, rules))


def test_four_files_and_inline_parts_are_the_same_configuration(folder) -> None:
    assert without_places(folder.load(MAIN, files=FILES).configuration) == without_places(
        folder.load(INLINE).configuration
    )


@pytest.mark.parametrize("part", ["logging", "backends", "routing"])
def test_any_one_part_may_be_inline_while_the_others_are_files(folder, part: str) -> None:
    inline = {
        "logging": "{level: debug}",
        "backends": "[{name: primary, host: pg1}]",
        "routing": "{defaults: {pool_size: 7}, rules: [{default: true, backend: primary}]}",
    }
    main = MAIN.replace(f"{{path: {part}.yaml}}", inline[part])
    expected = without_places(folder.load(MAIN, files=FILES).configuration)
    assert without_places(folder.load(main, files=FILES).configuration) == expected


def test_relative_paths_start_at_the_folder_of_the_main_file(folder, monkeypatch, tmp_path: Path) -> None:
    folder.load(MAIN, files=FILES)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    configuration = load("../pgpooler.yaml").configuration
    assert configuration.files == tuple(
        str(tmp_path / name) for name in ("pgpooler.yaml", "logging.yaml", "backends.yaml", "routing.yaml")
    )
    assert configuration.routing.rules[0].place == "../routing.yaml:3:5"


@pytest.mark.parametrize("word", ["no", "0123", "12:30", "1e3", "2026-01-01", "0x10", "yes", "true", "1.10"])
def test_a_text_stays_what_was_written_whatever_yaml_would_make_of_it(folder, word: str) -> None:
    configuration = folder.configuration(
        f"backends: [{{name: {word}, host: pg1}}]\n"
        f"auth: {{users: {{{word}: {{password: {word}}}}}}}\n"
        f"routing: {{rules: [{{user: [{word}], backend: {word}}}]}}\n"
    )
    assert configuration.backends[0].name == word
    assert configuration.auth.users[word].password == word
    assert configuration.routing.rules[0].user[0].text == word


def test_anchors_aliases_and_merge_keys_work(folder) -> None:
    configuration = folder.configuration(
        """
backends:
  - &base {name: primary, host: pg1, port: 5433, pool_size: 3}
  - {<<: *base, name: replica, host: pg2}
routing:
  rules:
    - {user: &people [a, b], backend: primary}
    - {database: x, user: *people, backend: replica}
"""
    )
    replica = configuration.backends[1]
    assert (replica.name, replica.host, replica.port, replica.pool_size) == ("replica", "pg2", 5433, 3)
    assert configuration.routing.rules[0].user == configuration.routing.rules[1].user


def test_an_alias_that_contains_itself_is_reported(folder) -> None:
    (message,) = folder.marked("auth: {method: trust}\nbackends: ▸&a [*a]\n")
    assert "contains itself" in message


def test_merging_twice_is_a_duplicate_and_merging_no_section_an_error(folder) -> None:
    folder.marked(
        f"{REST}limits: &a {{max_queue: 1}}\ntimeouts: {{<<: ▸x, drain_timeout: 1}}\n"
        "routing:\n  defaults:\n    <<: *a\n    ▸<<: *a\n"
    )


def test_aliases_that_multiply_take_no_time(folder) -> None:
    levels = "".join(f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
    messages = folder.problems(f"backends:\n- &a0 [x]\n{levels}auth: {{method: trust}}\n")
    assert len(messages) == 40


def test_a_duplicate_key_is_refused_at_any_depth_with_the_line_of_the_first(folder) -> None:
    messages = folder.marked(
        """
backends: [{name: primary, host: pg1}]
auth: {method: trust}
listen:
  port: 6432
  ▸port: 6433
▸auth: {method: trust}
"""
    )
    assert all("twice" in message for message in messages)
    assert "line 5" in messages[0]


@pytest.mark.parametrize("null", [" ▸~", " ▸null", "▸", " ▸Null", " ▸!!null x"])
def test_w15_a_matcher_without_a_value_is_refused_and_not_taken_as_anybody(folder, null: str) -> None:
    (message,) = folder.marked(f"{REST}routing:\n  rules:\n    - backend: primary\n      database:{null}\n")
    assert "the value is missing (null)" in message


REST = "backends: [{name: primary, host: pg1}]\nauth: {method: trust}\n"


@pytest.mark.parametrize("part", ["logging", "backends", "routing"])
def test_a_missing_file_is_reported_where_it_is_named(folder, part: str) -> None:
    files = {name: text for name, text in FILES.items() if name != f"{part}.yaml"}
    main = MAIN.replace(f"{part}.yaml", f"▸{part}.yaml")
    (message,) = folder.marked(main, files=files)
    assert "No such file" in message


def test_a_missing_main_file_is_reported_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.yaml: cannot read .*No such file"):
        load(tmp_path / "nowhere.yaml")


def test_the_problems_of_all_files_are_reported_at_once_in_the_order_of_the_files(folder) -> None:
    messages = folder.marked(
        MAIN + "listen: {port: ▸0}\n",
        files={
            "logging.yaml": "level: ▸loud\n",
            "backends.yaml": "backends:\n  - {name: primary, host: ▸'a b', ▸prot: 1}\n",
            "routing.yaml": "routing:\n  - {database: ▸~ (, backend: primary}\n  - {default: true, backend: ▸other}\n",
        },
    )
    assert [next(word for word in WORDS if word in message) for message in messages] == list(WORDS)


WORDS = ("65535", "loud", "'a b'", "did you mean 'port'", "bad regular expression", "no backend called 'other'")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("backends.yaml", "▸backend: []\n", "did you mean 'backends'"),
        ("routing.yaml", "▸rules: []\n", "unknown key 'rules'"),
        ("logging.yaml", "▸logging: {level: info}\n", "unknown key 'logging'"),
        ("backends.yaml", "▸- {name: primary, host: pg1}\n", "expected keys and values"),
        ("backends.yaml", "▸", "the file is empty"),
        ("routing.yaml", "▸# nothing here\n", "the file is empty"),
    ],
)
def test_a_part_file_of_another_shape_is_refused(folder, name: str, text: str, message: str) -> None:
    assert message in "".join(folder.marked(MAIN, files={**FILES, name: text}))


@pytest.mark.parametrize("path", ["▸''", "▸[logging.yaml]", "▸~", "▸'${NOT_SET}'"])
def test_the_path_of_a_part_is_a_path(folder, path: str) -> None:
    (message,) = folder.marked(MAIN.replace("logging.yaml", path), files=FILES)
    assert "the path of the logging file" in message or "NOT_SET" in message


def test_a_backends_file_without_backends_is_refused(folder) -> None:
    messages = folder.marked(MAIN, files={**FILES, "backends.yaml": "▸backend: []\n"})
    assert [message.partition(" in ")[0] for message in messages] == [
        "unknown key 'backend'",
        "the key 'backends' is missing",
    ]


def test_nothing_goes_beside_the_path_of_a_part(folder) -> None:
    (message,) = folder.marked(MAIN.replace("logging.yaml}", "logging.yaml, ▸level: debug}"), files=FILES)
    assert "belongs into that file" in message


@pytest.mark.parametrize("section", ["admin", "gui", "analytics"])
def test_w16_sections_of_later_versions_are_refused_by_name(folder, section: str) -> None:
    (message,) = folder.marked(f"{REST}▸{section}: {{port: 1}}\n")
    assert message == f"'{section}' is not in this version of PgPooler; take it out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "not valid YAML"),
        ("listen: {host: *}", 'write * in quotes: "*"'),
        ("a: [1, 2", "not valid YAML"),
        ("a: \t- b", "not valid YAML"),
        ('a: "\\UFFFFFFFF"', "no such character"),
        ("a: b\n---\nc: d\n", "not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("a: !!python/object:x.Y {}", "is not allowed"),
        ("a: !secret x", "is not allowed"),
        ('a: "\\0"', "no text can hold"),
        ('a: "\\ud800"', "no text can hold"),
        ("? [a]\n: b", "the name of a key"),
        ("~: b", "the name of a key"),
        ("a: b\x07", "not valid YAML"),
    ],
)
def test_what_is_not_yaml_is_reported_and_never_raised(folder, text: str, message: str) -> None:
    assert any(message in problem.message for problem in folder.problems(text))


def test_the_place_of_a_syntax_error_is_where_it_is(folder) -> None:
    folder.marked("listen:\n  port: 1\n  host▸: x: y\n".replace("host▸: x: y", "host: x▸: y"))
    folder.marked("a: b\nc: d▸\x07\n")
    folder.marked('a: b\nc: "\\U▸FFFFFFFF"\n')


def test_a_file_that_is_not_utf_8_is_reported_at_its_first_bad_byte(tmp_path: Path) -> None:
    path = tmp_path / "pgpooler.yaml"
    path.write_bytes("ä: b\nä: ".encode() + b"\xff")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.message) == (2, 4, "the file is not UTF-8")


CHECKED = """
listen: {host: <localhost>, port: <6432>, unix_socket_dir: x, unix_socket_mode: <0700>, backlog: <1>}
logging:
  level: <info>
  destination: <file>
  format: <"json">
  file: {directory: x, append: <'no'>, rotation_age: <1h>, rotation_size_mb: <1>, keep: <2>}
backends:
  - {name: primary, host: <pg1>, port: <5432>, pool_size: <3>, pool_mode: <session>, server_lifetime: <1m>}
routing:
  defaults: {pool_size: <3>, max_queue: <4>}
  rules:
    - user: [a, ~ ^b]
      database: x*
      backend: <primary>
      session_idle_timeout: <5>
auth: {method: <md5>, users: {alice: {password: x}}}
limits: {max_client_conn: <5>, max_queue: <6>}
timeouts: {client_login_timeout: <1s>, drain_timeout: <0>, query_wait_timeout: <5m>, server_connect_timeout: <3s>}
workers: <1>
"""
SPANS = [match.span() for match in re.finditer("<[^>]*>", CHECKED)]


def plain(text: str) -> str:
    return text.replace("<", "").replace(">", "")


def test_the_file_of_the_next_test_is_right(folder) -> None:
    assert folder.load(plain(CHECKED)).warnings == ()


@pytest.mark.parametrize("span", SPANS)
def test_a_bad_value_anywhere_is_reported_exactly_there(folder, span: tuple[int, int]) -> None:
    folder.marked(plain(CHECKED[: span[0]]) + "▸'\N{SNOWMAN} *'" + plain(CHECKED[span[1] :]))


WORDS_OF_FILES = """backends routing rules defaults listen logging auth users path name host port user database
backend default true pgpooler.yaml workers auto 5s x* ~ null ${A} $${ & * << ? : - [ ] { } , " ' # ! | > % @ `"""
TOKENS = st.sampled_from([*WORDS_OF_FILES.split(), "\t", "\n", "\n  ", "\n    - ", ": ", " ", "- "])
garbage = (
    st.text(max_size=60) | st.lists(TOKENS, max_size=40).map("".join) | st.lists(TOKENS, max_size=40).map(" ".join)
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A good file with a stretch of it replaced."""
    start = draw(st.integers(0, len(INLINE)))
    end = draw(st.integers(start, min(len(INLINE), start + 12)))
    return INLINE[:start] + draw(garbage) + INLINE[end:]


@given(text=garbage | damaged())
def test_any_text_gives_a_configuration_or_a_configuration_error(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(ConfigurationError):
        assert load(path, {}).configuration.backends
