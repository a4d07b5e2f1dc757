"""How a client shows who it is, and what one is told who cannot."""

from __future__ import annotations

from spec.conformance.requests import NAME, query
from spec.conformance.scripts import FIRST, READY, Leave, Open, Script, Theme, ask, error, rows
from spec.conformance.words import CLOSED

START = "protocol-flow#PROTOCOL-FLOW-START-UP"
SCRAM = "sasl-authentication#SASL-SCRAM-SHA-256"
REFUSED = (
    ("AuthenticationSASL", "AuthenticationSASLContinue", error("28P01"), CLOSED),
    ("AuthenticationMD5Password", error("28P01"), CLOSED),
    ("AuthenticationCleartextPassword", error("28P01"), CLOSED),
)
"""What somebody hears who gives a wrong proof: the same for a user that exists and for one that does not."""

UNPROVEN = (("AuthenticationSASL",), ("AuthenticationMD5Password",), ("AuthenticationCleartextPassword",))
LATER = ask(query("SELECT 1"), answer=(*rows("1"), READY), on="later")

THEME = Theme(
    "authentication",
    "SCRAM-SHA-256, wrong passwords, unknown users",
    (
        Script(
            "SCRAM-SHA-256 proves both sides to each other",
            SCRAM,
            (
                Open(
                    answers=(
                        (
                            "AuthenticationSASL",
                            "AuthenticationSASLContinue",
                            "AuthenticationSASLFinal",
                            "AuthenticationOk",
                            READY,
                        ),
                    )
                ),
            ),
            needs=("SCRAM-SHA-256",),
        ),
        Script(
            "the session belongs to the user who logged in",
            START,
            (Open(), ask(query("SELECT session_user = current_user"), answer=(*rows("t"), READY))),
        ),
        Script(
            "a wrong password is refused",
            START,
            (Open(password="not the password", answers=REFUSED), LATER),  # noqa: S106  it is none
            needs=("passwords",),
            is_own=True,
        ),
        Script(
            "an unknown user hears what one with a wrong password hears",
            START,
            (Open(user=NAME, answers=REFUSED), LATER),
            needs=("passwords",),
            is_own=True,
        ),
        Script(
            "a client that goes away instead of giving its proof",
            START,
            (Open(answers=UNPROVEN, is_unproven=True), Leave(FIRST), LATER),
            needs=("passwords",),
            is_own=True,
        ),
    ),
)
