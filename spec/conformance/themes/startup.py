"""How a session begins, and what is negotiated before."""

from __future__ import annotations

from spec.codec import frontend
from spec.conformance.requests import NOTHING, query, untyped
from spec.conformance.scripts import FIRST, READY, Leave, Open, Script, Theme, ask, error, rows
from spec.conformance.words import CLOSED

START = "protocol-flow#PROTOCOL-FLOW-START-UP"
SSL = "protocol-flow#PROTOCOL-FLOW-SSL"
GSS = "protocol-flow#PROTOCOL-FLOW-GSSAPI"
VERSIONS = "protocol-overview#PROTOCOL-VERSIONS"
REPORTED = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "application_name",
    "is_superuser",
    "session_authorization",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
)
"""Parameters that every server since PostgreSQL 9.0 reports (protocol-flow#PROTOCOL-ASYNC)."""

REFUSED = (CLOSED,)
SERVED = ask(query("SELECT 1"), answer=(*rows("1"), READY))
LATER = ask(query("SELECT 1"), answer=(*rows("1"), READY), on="later")

THEME = Theme(
    "startup",
    "requests for encryption, versions, protocol options, startup parameters",
    (
        Script("a session begins", START, (Open(answers=(("BackendKeyData 4 bytes", READY),)), SERVED)),
        Script("the parameters are reported", "protocol-flow#PROTOCOL-ASYNC", (Open(reports=REPORTED),)),
        Script("SSLRequest is answered and the session goes on", SSL, (Open(encryption=("SSLRequest",)), SERVED)),
        Script(
            "GSSENCRequest is answered by one byte",
            GSS,
            (
                Open(encryption=("GSSENCRequest",), packet=NOTHING, answers=(("encryption G or N",),)),
                Leave(FIRST),
                LATER,
            ),
            is_own=True,
        ),
        Script(
            "GSSENCRequest is declined and the session goes on",
            GSS,
            (Open(encryption=("GSSENCRequest",)), SERVED),
            needs=("going on without GSSAPI encryption",),
        ),
        Script(
            "both requests for encryption, one after the other",
            GSS,
            (Open(encryption=("GSSENCRequest", "SSLRequest")), SERVED),
            needs=("going on without GSSAPI encryption",),
        ),
        Script(
            "a session in TLS",
            SSL,
            (Open(encryption=("SSLRequest",), answers=(("encryption S", READY),)), SERVED),
            needs=("TLS",),
        ),
        Script(
            "protocol 3.2 is agreed on, or 3.0 is offered",
            VERSIONS,
            (
                Open(
                    minor=2,
                    answers=(
                        ("BackendKeyData", READY),
                        ("NegotiateProtocolVersion 3.0", "BackendKeyData 4 bytes", READY),
                    ),
                ),
                SERVED,
            ),
            is_own=True,
        ),
        Script(
            "an unknown minor version is negotiated down",
            VERSIONS,
            (Open(minor=9999, answers=(("NegotiateProtocolVersion 3.2 or 3.0", READY),)), SERVED),
            is_own=True,
        ),
        Script(
            "an unknown protocol option is named as unknown",
            START,
            (
                Open(
                    parameters=(("_pq_.conformance", "1"),),
                    answers=(("NegotiateProtocolVersion 3.0 _pq_.conformance or 3.2 _pq_.conformance", READY),),
                ),
                SERVED,
            ),
            is_own=True,
        ),
        Script(
            "an unknown option and an unknown minor version are negotiated once",
            START,
            (
                Open(
                    minor=9999,
                    parameters=(("_pq_.conformance", "1"),),
                    answers=(("NegotiateProtocolVersion 3.0 _pq_.conformance or 3.2 _pq_.conformance", READY),),
                ),
                SERVED,
            ),
            is_own=True,
        ),
        Script(
            "startup parameters are in force",
            START,
            (
                Open(parameters=(("application_name", "conforming"), ("work_mem", "1234kB"))),
                ask(query("SHOW application_name"), answer=(*rows("conforming", tag="SHOW"), READY)),
                ask(query("SHOW work_mem"), answer=(*rows("1234kB", tag="SHOW"), READY)),
            ),
            needs=("startup parameters",),
        ),
        Script(
            "command-line options are in force",
            START,
            (
                Open(parameters=(("options", "-c work_mem=1234kB -c DateStyle=German"),)),
                ask(query("SHOW work_mem"), answer=(*rows("1234kB", tag="SHOW"), READY)),
                ask(query("SELECT DATE '2001-02-03'"), answer=(*rows("03.02.2001"), READY)),
            ),
            needs=("command-line options",),
        ),
        Script(
            "a parameter that can be set at the start alone",
            START,
            (
                Open(parameters=(("ignore_system_indexes", "on"),)),
                ask(query("SHOW ignore_system_indexes"), answer=(*rows("on", tag="SHOW"), READY)),
            ),
            needs=("startup parameters",),
        ),
        Script(
            "an unknown startup parameter is refused",
            START,
            (Open(parameters=(("conformance_unknown", "1"),), answers=((error("42704"), CLOSED),)), LATER),
        ),
        Script(
            "a wrong value of a startup parameter is refused",
            START,
            (Open(parameters=(("work_mem", "much"),), answers=((error("22023"), CLOSED),)), LATER),
            needs=("startup parameters",),
        ),
        Script(
            "an unknown database is refused",
            START,
            (Open(database="conformance_unknown", answers=((error("3D000"), CLOSED),)), LATER),
            is_own=True,
        ),
        Script(
            "a StartupMessage without a user is refused",
            START,
            (
                Open(packet=frontend("StartupMessage", minor=0, parameters=()), answers=((error("28000"), CLOSED),)),
                LATER,
            ),
            is_own=True,
        ),
        Script(
            "an unknown major version is refused",
            START,
            (
                Open(
                    packet=untyped("a StartupMessage of protocol 4.0", b"\0\4\0\0user\0conformance\0\0"),
                    answers=((error("0A000", "08P01"), CLOSED), REFUSED),
                ),
                LATER,
            ),
            is_own=True,
        ),
        Script(
            "a client that goes away before it has said anything",
            START,
            (Open(packet=NOTHING, answers=()), Leave(FIRST), LATER),
        ),
    ),
)
