"""What a target may leave out, and the evidence for it.

A feature is tried with a script of its own before the first script that needs it.  Only an explicit refusal counts as
`not offered`: a message named here, or an ErrorResponse that says so by its SQLSTATE or in its words.  Whatever else
is answered leaves the scripts to be played, and to deviate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from spec.conformance.requests import query
from spec.conformance.scripts import FIRST, Ask, Open, Script, either
from spec.conformance.stage import Performance
from spec.conformance.words import CLOSED, error_fields

NOT_SUPPORTED = "0A000"
NOT_SUPPORTED_WORDS = re.compile(r"not (supported|allowed|offered|possible)|unsupported", re.IGNORECASE)


@dataclass(frozen=True)
class Feature:
    """Something a target may not have: a script that uses it, and messages that show it or refuse it."""

    name: str
    script: Script
    shown_by: tuple[str, ...] = ()
    refused_by: tuple[str, ...] = ()


def feature(
    name: str, anchor: str, *steps: Open | Ask, shown_by: tuple[str, ...] = (), refused_by: tuple[str, ...] = ()
) -> Feature:
    """Return a feature that is tried by these steps."""
    return Feature(name, Script(name, anchor, steps), shown_by, refused_by)


PROOFS = ("AuthenticationSASL", "AuthenticationMD5Password", "AuthenticationCleartextPassword")
READY_OR_CLOSED = (("ReadyForQuery",), (CLOSED,))

FEATURES = (
    feature(
        "TLS",
        "protocol-flow#PROTOCOL-FLOW-SSL",
        Open(FIRST, READY_OR_CLOSED, encryption=("SSLRequest",)),
        refused_by=("encryption N",),
    ),
    feature(
        "going on without GSSAPI encryption",
        "protocol-flow#PROTOCOL-FLOW-GSSAPI",
        Open(FIRST, READY_OR_CLOSED, encryption=("GSSENCRequest",)),
        refused_by=("encryption G",),
    ),
    feature(
        "protocol 3.2",
        "protocol-overview#PROTOCOL-VERSIONS",
        Open(FIRST, READY_OR_CLOSED, minor=2),
        refused_by=("NegotiateProtocolVersion 3.0",),
    ),
    feature(
        "startup parameters",
        "protocol-flow#PROTOCOL-FLOW-START-UP",
        Open(FIRST, READY_OR_CLOSED, parameters=(("work_mem", "1234kB"),)),
    ),
    feature(
        "command-line options",
        "protocol-flow#PROTOCOL-FLOW-START-UP",
        Open(FIRST, READY_OR_CLOSED, parameters=(("options", "-c work_mem=1234kB"),)),
    ),
    feature(
        "SCRAM-SHA-256",
        "sasl-authentication#SASL-SCRAM-SHA-256",
        Open(FIRST, READY_OR_CLOSED),
        shown_by=PROOFS[:1],
        refused_by=("AuthenticationOk",),
    ),
    feature(
        "passwords",
        "protocol-flow#PROTOCOL-FLOW-START-UP",
        Open(FIRST, READY_OR_CLOSED),
        shown_by=PROOFS,
        refused_by=("AuthenticationOk",),
    ),
    feature(
        "replication",
        "protocol-replication",
        Open(FIRST, READY_OR_CLOSED, parameters=(("replication", "database"),)),
    ),
    feature(
        "another role",
        "sql-set-role",
        either(query("BEGIN; SET LOCAL ROLE pg_monitor; COMMIT"), answers=READY_OR_CLOSED),
        refused_by=("ErrorResponse 42501",),
    ),
    feature(
        "transaction blocks",
        "sql-begin",
        either(query("BEGIN"), answers=READY_OR_CLOSED),
    ),
)


def evidence(tried: Feature, performance: Performance) -> str:
    """Return what shows that a target does not offer a feature; nothing if it does, or if it said nothing clear."""
    said = set(performance.said) | {token.split(" ", 1)[0] for token in performance.said}
    if said & set(tried.shown_by):
        return ""
    for token in tried.refused_by:
        if token in said:
            return f"the target answered {token}"
    for message in performance.errors:
        fields = error_fields(message)
        if fields.get("C") == NOT_SUPPORTED or NOT_SUPPORTED_WORDS.search(fields.get("M", "")):
            return f"the target answered {fields.get('C')}: {fields.get('M')}"
    return ""
