"""The conformance suite itself: what it expects, how it shrinks, what it prints, and what it catches."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from spec.codec import Instance, backend, encode
from spec.conformance.command import main
from spec.conformance.proofs import Proofs, md5
from spec.conformance.report import as_json, details, exit_status, table
from spec.conformance.requests import NAME, SYNC, parse, query, run
from spec.conformance.scripts import READY, Ask, Script, Step, Theme, ask, error, given, is_right, rows
from spec.conformance.shrinking import shrunk
from spec.conformance.stage import Deviation, Performance, play, unique_name
from spec.conformance.suite import Outcome, Result, Suite
from spec.conformance.target import Target, Unusable, target
from spec.conformance.themes import THEMES
from spec.conformance.words import condensed, shown
from spec.conversation import RULE
from spec.listener import Listener
from spec.messages import Sender

ALL = [(theme, script) for theme in THEMES.values() for script in theme.scripts]


# -- the tables --------------------------------------------------------------------------------------------------------


def test_every_script_has_a_name_of_its_own_in_its_theme() -> None:
    names = [(theme.name, script.name) for theme, script in ALL]
    assert len(set(names)) == len(names) > 200


def test_every_script_cites_a_page_of_the_manual_and_expects_something() -> None:
    for _, script in ALL:
        assert script.anchor.replace("#", "").replace("-", "").isalnum(), script.name
        assert any(getattr(step, "answers", ()) not in ((), ((),)) for step in script.steps), script.name


# -- what is expected --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "said", "fits"),
    [
        ("DataRow", "DataRow 1", True),
        ("DataRow 1", "DataRow 1", True),
        ("DataRow 1", "DataRow 2", False),
        ("DataRow 1 or 2", "DataRow 2", True),
        ("DataRow", "CommandComplete SELECT 1", False),
        (error("08P01", "0A000"), "ErrorResponse 0A000", True),
    ],
)
def test_a_message_fits_by_its_name_or_by_its_gist(wanted: str, said: str, fits: bool) -> None:
    assert is_right((wanted,), [said]) is fits


def test_an_answer_that_is_too_short_or_too_long_is_wrong() -> None:
    assert not is_right(("DataRow", READY), ["DataRow 1"])
    assert not is_right(("DataRow",), ["DataRow 1", READY])


def test_messages_are_shown_by_their_gist() -> None:
    assert shown(query("SELECT\n1")) == r"Query 'SELECT\\n1'"
    assert shown(backend("DataRow", values=(b"a", None, b"\0"))) == "DataRow a, NULL, 0x00"
    assert condensed(["DataRow 1"] * 30 + [READY]) == ("DataRow (30 times)", READY)


def test_names_are_unique_and_as_long_as_what_they_stand_for() -> None:
    assert len(unique_name()) == len(NAME)
    assert unique_name() != unique_name()


# -- where to ----------------------------------------------------------------------------------------------------------


def test_a_uri_names_host_port_user_password_and_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "from the environment")
    assert target("postgres://a%40b:s%2Fcret@host:6432/d") == Target("host", 6432, "a@b", "s/cret", "d")
    assert target("postgresql://me@host") == Target("host", 5432, "me", "from the environment", "me")
    assert "s/cret" not in repr(target("postgres://a:s%2Fcret@host"))


@pytest.mark.parametrize(
    "uri", ["host", "http://me@host/", "postgres://host", "postgres://me@host:many", "postgres://me@"]
)
def test_a_uri_that_names_no_target_is_refused(uri: str) -> None:
    with pytest.raises(Unusable):
        target(uri)


# -- proofs ------------------------------------------------------------------------------------------------------------


def test_the_proof_of_rfc_7677() -> None:
    proofs = Proofs("user", "pencil")
    proofs.first = b"n=user,r=rOprNGfwEbeRWgbNEkqO"
    nonce = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    challenge = nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    answer = proofs.answer(backend("AuthenticationSASLContinue", data=challenge))
    assert answer is not None
    assert answer["data"] == b"c=biws," + nonce + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    signature = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert proofs.is_genuine(backend("AuthenticationSASLFinal", data=signature))
    assert not proofs.is_genuine(backend("AuthenticationSASLFinal", data=b"v=" + b"A" * 43 + b"="))


def test_the_proof_by_md5() -> None:
    assert md5(b"md5_user", b"password", b"\1\2\3\4") == b"md580a32c6f038b79de232354a2ee7060eb"


# -- shrinking ---------------------------------------------------------------------------------------------------------


def script_of(*steps: Step) -> Script:
    return Script("a script", "protocol-flow", steps)


ONE, TWO, THREE, FOUR = (ask(query(f"SELECT {number}")) for number in range(1, 5))
MADE = given(query("CREATE"))


def deviating(step: int, rule: str = "answer") -> Deviation:
    return Deviation(rule, "protocol-flow", "wrong", step)


def deviates_with(*needed: Step, rule: str = "answer") -> Callable[[Script], Performance]:
    """A target that deviates in the last of these steps if all of them are there."""

    def perform(script: Script) -> Performance:
        shows = all(step in script.steps for step in needed)
        deviation = deviating(script.steps.index(needed[-1]), rule) if shows else None
        return Performance((), (), (), (), deviation)

    return perform


def test_what_comes_behind_the_deviation_and_what_it_does_not_need_is_left_out() -> None:
    script = script_of(ONE, TWO, THREE, FOUR)
    assert shrunk(script, deviating(2), deviates_with(ONE, THREE)).steps == (ONE, THREE)


def test_a_step_that_the_answer_rests_on_stays() -> None:
    script = script_of(MADE, ONE, TWO)
    assert shrunk(script, deviating(2), deviates_with(TWO)).steps == (MADE, TWO)


def test_a_direct_server_says_whether_a_step_that_others_rest_on_may_go() -> None:
    script = script_of(MADE, ONE, TWO)
    fine = deviates_with(FOUR)
    assert shrunk(script, deviating(2), deviates_with(TWO), fine).steps == (TWO,)
    needs_it: Callable[[Script], Performance] = lambda shorter: replace(  # noqa: E731
        fine(shorter), deviation=None if MADE in shorter.steps else deviating(0)
    )
    assert shrunk(script, deviating(2), deviates_with(TWO), needs_it).steps == (MADE, TWO)


def test_a_broken_rule_is_shown_with_as_few_requests_as_possible() -> None:
    series = ask(*run("SELECT 1"), SYNC)

    def perform(script: Script) -> Performance:
        asks = [step for step in script.steps if isinstance(step, Ask)]
        shows = any(parse("SELECT 1") in step.requests for step in asks)
        return Performance((), (), (), (), deviating(0, "reply-in-order") if shows else None)

    (step,) = shrunk(script_of(MADE, series), deviating(1, "reply-in-order"), perform).steps
    assert isinstance(step, Ask)
    assert step.requests == (parse("SELECT 1"),)


# -- the report --------------------------------------------------------------------------------------------------------


THEME = Theme("simple", "for the test", (script_of(ONE),))
FOUND = Deviation("answer", "protocol-flow#X", "the answer is not the one due", 0, ((READY,),), ("DataRow 1",))
CONFORMS = Outcome("simple", script_of(ONE), Result.CONFORMS)
DEVIATES = Outcome(
    "simple", script_of(ONE), Result.DEVIATES, "", FOUND, script_of(ONE), (("DataRow 1",),), ("XX000 oh",)
)
NOT_OFFERED = Outcome("simple", script_of(ONE), Result.NOT_OFFERED, "TLS: the target answered N")
COULD_NOT_RUN = Outcome("simple", script_of(ONE), Result.COULD_NOT_RUN, "42501 permission denied")


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([CONFORMS], 0),
        ([CONFORMS, NOT_OFFERED], 0),
        ([CONFORMS, COULD_NOT_RUN], 2),
        ([CONFORMS, COULD_NOT_RUN, DEVIATES], 1),
        ([NOT_OFFERED], 2),
        ([], 2),
    ],
)
def test_the_exit_status_is_1_for_deviations_and_2_where_nothing_was_shown(
    outcomes: list[Outcome], status: int
) -> None:
    assert exit_status(outcomes) == status


def test_the_table_has_a_line_for_each_theme_and_one_for_all() -> None:
    assert table([THEME], [CONFORMS, CONFORMS, DEVIATES, NOT_OFFERED, COULD_NOT_RUN]) == [
        "theme   scripts  conforms  deviates  not offered  could not run",
        "simple        5         2         1            1              1",
        "all           5         2         1            1              1",
    ]


def test_the_details_say_what_was_expected_heard_and_done() -> None:
    text = "\n".join(details([CONFORMS, DEVIATES, NOT_OFFERED]))
    assert "https://www.postgresql.org/docs/current/protocol-flow.html#X" in text
    assert "expected  ReadyForQuery I\n    heard     DataRow 1\n    in words  XX000 oh" in text
    assert "1. first: Query 'SELECT 1' -> DataRow 1" in text
    assert "Not offered:\n  simple: a script (TLS: the target answered N)" in text


def test_the_json_holds_the_counts_and_every_script() -> None:
    result: Any = json.loads(json.dumps(as_json("host:1/d", None, [THEME], [CONFORMS, DEVIATES])))
    assert result["status"] == 1
    assert result["themes"]["simple"] == {"conforms": 1, "deviates": 1, "not offered": 0, "could not run": 0}
    assert [script["result"] for script in result["scripts"]] == ["conforms", "deviates"]
    assert result["scripts"][1]["deviation"]["shortest"] == [
        {"connection": "first", "does": "Query 'SELECT 1'", "heard": ["DataRow 1"]}
    ]


# -- broken servers ----------------------------------------------------------------------------------------------------


ROW = (
    backend("RowDescription", columns=((b"one", 0, 0, 23, 4, -1, 0),)),
    backend("DataRow", values=(b"1",)),
    backend("CommandComplete", tag=b"SELECT 1"),
)
IDLE = backend("ReadyForQuery", status=b"I")
GREETING = (backend("AuthenticationOk"), backend("BackendKeyData", process_id=1, key=b"1234"), IDLE)

Answers = Callable[[Instance], bytes | None]
"""What a server says to a message; None: it closes the connection."""


class TinyServer:
    """A server in a thread that lets everybody in and answers as it is told."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.uri = f"postgres://somebody@127.0.0.1:{self.listening.getsockname()[1]}/d"
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self.serve, args=(client,))
            self.threads.append(thread)
            thread.start()

    def serve(self, client: socket.socket) -> None:
        listener = Listener()
        with client, contextlib.suppress(OSError):  # who has seen enough closes the connection
            while data := client.recv(65536):
                for heard in listener.hear(Sender.FRONTEND, data):
                    if heard.instance.name == "Terminate":
                        return
                    is_startup = heard.instance.name == "StartupMessage"
                    answer = said(*GREETING) if is_startup else self.answers(heard.instance)
                    if is_startup:
                        listener.hear(Sender.BACKEND, answer or b"")
                    if answer is None:
                        return
                    client.sendall(answer)

    def stop(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for thread in self.threads:
            thread.join()


def said(*messages: Instance) -> bytes:
    return b"".join(map(encode, messages))


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], TinyServer]]:
    """Start tiny servers: `serve(answers)`."""
    started: list[TinyServer] = []

    def start(answers: Answers) -> TinyServer:
        started.append(TinyServer(answers))
        return started[-1]

    yield start
    for server in started:
        server.stop()


Serve = Callable[[Answers], TinyServer]
SELECT = script_of(ask(query("SELECT 1"), answer=(*rows("1"), READY)))
LITTLE_PATIENCE = 0.3


def found(server: TinyServer, script: Script = SELECT, patience: float = 20.0) -> Deviation | None:
    return play(script, target(server.uri, patience)).deviation


def test_a_server_that_answers_well_conforms(serve: Serve) -> None:
    assert found(serve(lambda request: said(*ROW, IDLE))) is None


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (said(backend("ParseComplete"), *ROW, IDLE), "simple-query-is-plain"),
        (said(ROW[0], backend("DataRow", values=(b"1", b"2")), ROW[2], IDLE), "row-width"),
        (said(*ROW[:2], backend("CommandComplete", tag=b"SELECT 2"), IDLE), "tag-count"),
        (said(*ROW, backend("ReadyForQuery", status=b"T")), "transaction-status"),
        (said(*ROW) + b"y\0\0\0\4", "well-formed"),
        (said(ROW[0]) + b"D\0\0\0\5\0", "well-formed"),
    ],
    ids=["ParseComplete", "two values", "two rows", "a block", "an unknown type", "a row cut off"],
)
def test_a_server_that_breaks_a_rule_is_caught_by_it(serve: Serve, answer: bytes, rule: str) -> None:
    deviation = found(serve(lambda request: answer))
    assert deviation is not None
    assert deviation.rule == rule
    assert deviation.anchor == RULE[rule].anchor


def test_a_server_that_says_something_legal_but_wrong_is_caught(serve: Serve) -> None:
    answer = said(ROW[0], backend("DataRow", values=(b"2",)), ROW[2], IDLE)
    deviation = found(serve(lambda request: answer))
    assert deviation is not None
    assert (deviation.rule, deviation.heard[1]) == ("answer", "DataRow 2")


def test_a_server_that_hangs_up_without_a_word_is_caught(serve: Serve) -> None:
    deviation = found(serve(lambda request: None))
    assert deviation is not None
    assert deviation.rule == "closing-needs-a-reason"


def test_a_server_that_hangs_is_caught_with_a_clear_sentence(serve: Serve) -> None:
    deviation = found(serve(lambda request: said(*ROW)), patience=LITTLE_PATIENCE)
    assert deviation is not None
    assert deviation.rule == "silence"
    assert deviation.text == "nothing more came within 0.3 seconds in answer to Query 'SELECT 1'"
    assert deviation.heard[-1] == "CommandComplete SELECT 1"


def test_a_broken_rule_is_reported_with_the_shortest_script_that_shows_it(serve: Serve) -> None:
    right, wrong = said(*ROW, IDLE), said(backend("NoData"), IDLE)
    server = serve(lambda request: right if request["query"] else wrong)
    one = query("SELECT 1")
    answer = (*rows("1"), READY)
    script = script_of(given(one, answer=answer), ask(one, query(""), one, answer=answer * 3), ask(one, answer=answer))
    (outcome,) = Suite(target(server.uri)).run([Theme("simple", "for the test", (script,))])
    assert outcome.result is Result.DEVIATES
    assert outcome.deviation is not None
    assert outcome.deviation.rule == "simple-query-is-plain"
    assert outcome.shortest is not None
    (step,) = outcome.shortest.steps
    assert str(step) == "Query ''"


def test_the_command_reports_a_broken_server_and_exits_with_1(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    server = serve(lambda request: said(*ROW, IDLE))
    assert main(["--target", server.uri, "--theme", "function", "--patience", "20"]) == 1
    printed = capsys.readouterr().out
    assert "function        7         0         7" in printed
    assert "shortest script:" in printed


def test_the_command_exits_with_2_where_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as bound:  # bound but not listening: nobody else gets the port
        bound.bind(("127.0.0.1", 0))
        assert main(["--target", f"postgres://somebody@127.0.0.1:{bound.getsockname()[1]}/d"]) == 2
    assert "nothing could be examined" in capsys.readouterr().err
    assert main(["--target", "nowhere"]) == 2


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    for theme in THEMES.values():
        assert theme.summary in printed
    assert "exit status: 0 the target conforms, 1 it deviates, 2" in printed
