"""What a pooler may do between its two sides: a right one breaks no rule, and each way to be wrong breaks its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spec import phrases as say
from spec.codec import Instance, backend, encode, frontend
from spec.conversation import RULE as CONVERSATION
from spec.events import Canceled, Event, Gone, Leased, Released, Said, Side
from spec.messages import Sender
from spec.pooling import PoolingJudge
from spec.pooling_rules import RULES

STARTUP = frontend("StartupMessage", minor=0, parameters=((b"user", b"u"), (b"database", b"d")))
QUERY, OTHER = frontend("Query", query=b"SELECT 1"), frontend("Query", query=b"DISCARD ALL")
DONE, DISCARDED = backend("CommandComplete", tag=b"SELECT 1"), backend("CommandComplete", tag=b"DISCARD ALL")
COLUMN = (b"c", 0, 0, 25, -1, -1, 0)
REPLY = (
    backend("RowDescription", columns=(COLUMN,)),
    backend("DataRow", values=(b"mine",)),
    DONE,
)
ERROR = backend("ErrorResponse", fields=((b"S", b"ERROR"), (b"V", b"ERROR"), (b"C", b"57014"), (b"M", b"canceled")))


def ready(status: bytes = b"I") -> Instance:
    return backend("ReadyForQuery", status=status)


def said(side: Side, connection: int, *instances: Instance) -> list[Event]:
    return [Said(side, connection, instance, encode(instance)) for instance in instances]


def logged_in(side: Side, number: int, zone: bytes = b"UTC") -> list[Event]:
    return said(
        side,
        number,
        STARTUP,
        backend("AuthenticationOk"),
        backend("ParameterStatus", parameter=b"TimeZone", setting=zone),
        ready(),
    )


IN_TOKYO = backend("ParameterStatus", parameter=b"TimeZone", setting=b"Asia/Tokyo")
RUN = (say.parse(b"SELECT 0", b"mine"), say.bind(statement=b"mine", portal=b"mine"), say.execute(0, b"mine"), say.SYNC)
RUN_DONE = (say.PARSED, say.BOUND, backend("DataRow", values=(b"0",)), DONE, ready())

BEGIN = [
    *logged_in(Side.CLIENT, 1),
    *logged_in(Side.CLIENT, 2),
    *logged_in(Side.SERVER, 7),
    *logged_in(Side.SERVER, 8),
]


def asked(client: int, query: Instance = QUERY) -> list[Event]:
    """The client asks, gets the server connection, and its request is forwarded."""
    return [*said(Side.CLIENT, client, query), Leased(client, 7), *said(Side.SERVER, 7, query)]


def answered(client: int, *instances: Instance, server: int = 7) -> list[Event]:
    return [*said(Side.SERVER, server, *instances), *said(Side.CLIENT, client, *instances)]


def lease(
    client: int, asked: list[Instance], sent: list[Instance], *answers: list[Event], server: int = 7
) -> list[Event]:
    """A whole lease: what the client asks, what the server is sent instead, and what then is said."""
    return [
        *said(Side.CLIENT, client, *asked),
        Leased(client, server),
        *said(Side.SERVER, server, *sent),
        *(event for answer in answers for event in answer),
        Released(client, server),
    ]


def own(*instances: Instance, server: int = 7) -> list[Event]:
    """Replies that the pooler keeps for itself."""
    return said(Side.SERVER, server, *instances)


CLEANED = said(Side.SERVER, 7, OTHER, DISCARDED, ready())

# -- prepared statements: the client calls them s, the pooler p1 and p2 ------------------------------------------------

TEXT, ANOTHER = b"SELECT $1, 'one'", b"SELECT $1, 'two'"
SHAPE = (say.parameters(25), say.described(1))


def prepared(client: int, name: bytes, text: bytes = TEXT, types: tuple[int, ...] = (), server: int = 7) -> list[Event]:
    """A client prepares s, which has this name on the server."""
    sent = [say.parse(text, name, types), say.SYNC]
    return lease(
        client,
        [say.parse(text, b"s", types), say.SYNC],
        sent,
        answered(client, say.PARSED, ready(), server=server),
        server=server,
    )


def use(name: bytes, value: bytes = b"mine", portal: bytes = b"", formats: tuple[int, ...] = ()) -> list[Instance]:
    bind = frontend("Bind", portal=portal, statement=name, formats=(), values=(value,), result_formats=formats)
    return [bind, say.execute(0, portal), say.SYNC]


RAN = (say.BOUND, say.row(1), DONE, ready())


def used(
    client: int, name: bytes, *before: Instance, replies: tuple[Instance, ...] = (), server: int = 7
) -> list[Event]:
    """A client runs s, which has this name on the server; the pooler sends something of its own before, and keeps
    the replies to it."""
    own_replies = own(*replies, server=server)
    sent = [*before, *use(name)]
    return lease(client, use(b"s"), sent, own_replies, answered(client, *RAN, server=server), server=server)


LEGAL: dict[str, list[Event]] = {
    "one request": [*asked(1), *answered(1, *REPLY, ready()), Released(1, 7)],
    "one after the other, cleaned in between": [
        *asked(1),
        *answered(1, *REPLY, ready()),
        Released(1, 7),
        *CLEANED,
        *asked(2),
        *answered(2, *REPLY, ready()),
        Released(2, 7),
    ],
    "a statement of the pooler's own before the client's": [
        *said(Side.CLIENT, 1, QUERY),
        Leased(1, 7),
        *CLEANED,
        *said(Side.SERVER, 7, QUERY),
        *answered(1, *REPLY, ready()),
        Released(1, 7),
    ],
    "canceled while it waited": [*said(Side.CLIENT, 1, QUERY), *said(Side.CLIENT, 1, ERROR, ready())],
    "a client that is gone gets nothing": [*asked(1), Gone(Side.CLIENT, 1), *said(Side.SERVER, 7, *REPLY, ready())],
    "a cancel request in the lease": [*asked(1), Canceled(1, 7), *answered(1, ERROR, ready()), Released(1, 7)],
    "an error of the pooler's own instead of the server's, and the next request": [
        *asked(1),
        *said(Side.SERVER, 7, say.error(), ready()),
        *said(Side.CLIENT, 1, ERROR, ready()),
        *said(Side.CLIENT, 1, OTHER),
        *said(Side.SERVER, 7, OTHER),
        *answered(1, DISCARDED, ready()),
        Released(1, 7),
    ],
    "a statement that is not to run, and one behind it": lease(
        1,
        [QUERY, OTHER],
        [say.query(b"pgpooler_refuses_1"), OTHER],
        [*own(say.error()), *said(Side.CLIENT, 1, ERROR)],
        answered(1, ready(), DISCARDED, ready()),
    ),
    "two statements that are not to run, one behind the other": lease(
        1,
        [QUERY, QUERY, OTHER],
        [say.query(b"pgpooler_refuses_1"), say.query(b"pgpooler_refuses_2"), OTHER],
        [*own(say.error()), *said(Side.CLIENT, 1, ERROR), *answered(1, ready())],
        [*own(say.error()), *said(Side.CLIENT, 1, ERROR), *answered(1, ready(), DISCARDED, ready())],
    ),
    "a batch of the pooler's own before the client's": [
        *said(Side.CLIENT, 1, QUERY),
        Leased(1, 7),
        *said(Side.SERVER, 7, *RUN, *RUN_DONE),
        *said(Side.SERVER, 7, QUERY),
        *answered(1, *REPLY, ready()),
        Released(1, 7),
    ],
    "a ReadyForQuery kept back until the pooler has taken a change back": [
        *asked(1),
        *answered(1, *REPLY),
        *said(Side.SERVER, 7, IN_TOKYO, ready()),
        *said(Side.SERVER, 7, OTHER, backend("ParameterStatus", parameter=b"TimeZone", setting=b"UTC")),
        *own(DISCARDED, ready()),
        *said(Side.CLIENT, 1, ready()),
        Released(1, 7),
    ],
    "parameters told before the first request": [
        *said(Side.SERVER, 7, IN_TOKYO),
        *said(Side.CLIENT, 1, QUERY),
        Leased(1, 7),
        *said(Side.CLIENT, 1, IN_TOKYO),
        *said(Side.SERVER, 7, QUERY),
        *answered(1, *REPLY, ready()),
        Released(1, 7),
    ],
    "what the server said by itself just before the lease": [
        *said(Side.CLIENT, 1, QUERY),
        *said(Side.SERVER, 7, say.NOTIFICATION),
        Leased(1, 7),
        *said(Side.CLIENT, 1, say.NOTIFICATION),
        *said(Side.SERVER, 7, QUERY),
        *answered(1, *REPLY, ready()),
        Released(1, 7),
    ],
    "a statement under another name": [*prepared(1, b"p1"), *used(1, b"p1")],
    "a statement under its own name": [*prepared(1, b"s"), *used(1, b"s")],
    "two clients with one text": [*prepared(1, b"p1"), *prepared(2, b"p1"), *used(1, b"p1"), *used(2, b"p1")],
    "two clients with one name": [*prepared(1, b"p1"), *prepared(2, b"p2", ANOTHER), *used(1, b"p1"), *used(2, b"p2")],
    "a statement prepared again on another server": [
        *prepared(1, b"p1"),
        *used(1, b"p1", say.parse(TEXT, b"p1"), replies=(say.PARSED,), server=8),
        *used(1, b"p1", server=8),
    ],
    "a statement prepared again, and asked for its shape": [
        *prepared(1, b"p1"),
        *used(
            1,
            b"p1",
            *(say.parse(TEXT, b"p1"), say.describe_statement(b"p1"), say.FLUSH),
            replies=(say.PARSED, *SHAPE),
            server=8,
        ),
    ],
    "a statement that cannot be prepared again": [
        *prepared(1, b"p1"),
        *lease(
            1,
            use(b"s"),
            [say.parse(TEXT, b"p1"), *use(b"p1")],
            answered(1, say.error(), ready(), server=8),
            server=8,
        ),
    ],
    "an unnamed statement parsed again": [
        *lease(1, [say.parse(TEXT), say.SYNC], [say.parse(TEXT), say.SYNC], answered(1, say.PARSED, ready())),
        *lease(
            1,
            use(b""),
            [say.parse(TEXT), *use(b"")],
            [*own(say.PARSED, server=8), *answered(1, *RAN, server=8)],
            server=8,
        ),
    ],
    "a Parse answered by a Close of nothing": [
        *prepared(1, b"p1"),
        *lease(
            2,
            [say.parse(TEXT, b"s"), *use(b"s")],
            [say.close_statement(b"nothing"), *use(b"p1")],
            [*own(say.CLOSED), *said(Side.CLIENT, 2, say.PARSED), *answered(2, *RAN)],
        ),
    ],
    "a Parse that is skipped behind an error, as the Close in its place": [
        *prepared(1, b"p1"),
        *lease(
            2,
            [say.bind(statement=b"unheard"), say.parse(TEXT, b"s"), say.SYNC],
            [say.bind(statement=b"unheard"), say.close_statement(b"nothing"), say.SYNC],
            answered(2, say.error(), ready()),
        ),
    ],
    "a Close answered without a server": [
        *prepared(1, b"p1"),
        *said(Side.CLIENT, 1, say.close_statement(b"s")),
        *said(Side.CLIENT, 1, say.CLOSED),
        *lease(1, [say.SYNC], [say.SYNC], answered(1, ready())),
        *prepared(1, b"p2", ANOTHER),
        *used(1, b"p2"),
    ],
    "a Close that closes nothing on the server": [
        *prepared(1, b"p1"),
        *lease(
            1,
            [say.close_statement(b"s"), say.SYNC],
            [say.close_statement(b"nothing"), say.SYNC],
            answered(1, say.CLOSED, ready()),
        ),
        *prepared(1, b"p2", ANOTHER),
        *used(1, b"p2"),
    ],
    "the oldest statement makes room": [
        *prepared(1, b"p1"),
        *lease(
            2,
            [say.parse(ANOTHER, b"s"), *use(b"s")],
            [say.close_statement(b"p1"), say.parse(ANOTHER, b"p2"), *use(b"p2")],
            [*own(say.CLOSED), *answered(2, say.PARSED, *RAN)],
        ),
        *used(1, b"p1", say.parse(TEXT, b"p1"), replies=(say.PARSED,)),
    ],
    "a name given in SQL": [
        *asked(1, say.query(b"PREPARE s AS SELECT $1")),
        *answered(1, say.complete(b"PREPARE"), ready()),
        *said(Side.CLIENT, 1, *use(b"s")),
        *said(Side.SERVER, 7, *use(b"s")),
        *answered(1, *RAN),
        Released(1, 7),
    ],
}

BLOCK, ROLLBACK = say.query(b"BEGIN; SELECT 1"), say.query(b"ROLLBACK")
BEGUN = (say.complete(b"BEGIN"), *REPLY[:-1])
ROLLED_BACK = own(say.complete(b"ROLLBACK"), ready())
COPY_BEGUN = [*asked(1, say.query(b"COPY t FROM STDIN")), *answered(1, say.copy_begins("CopyInResponse"))]

LEGAL |= {
    "a block that is refused, and rolled back before the client hears of it": [
        *asked(1, BLOCK),
        *answered(1, *BEGUN),
        *own(DONE, ready(b"T")),
        *said(Side.SERVER, 7, ROLLBACK),
        *ROLLED_BACK,
        *said(Side.CLIENT, 1, ERROR, ready()),
        Released(1, 7),
    ],
    "a Sync in a COPY that the server does not get": [
        *COPY_BEGUN,
        *said(Side.CLIENT, 1, say.SYNC, say.COPY_DONE),
        *said(Side.SERVER, 7, say.COPY_DONE),
        *answered(1, say.complete(b"COPY 0"), ready()),
        Released(1, 7),
    ],
    "a Describe of the pooler's own in front of one of the client's, and another that gets the same reply": [
        *prepared(1, b"p1"),
        *lease(
            1,
            [say.parse(ANOTHER, b"t"), say.describe_statement(b"s"), say.describe_statement(b"t"), say.SYNC],
            [say.parse(ANOTHER, b"p2"), *[say.describe_statement(b"p1")] * 2, say.describe_statement(b"p2"), say.SYNC],
            [*answered(1, say.PARSED), *own(*SHAPE), *answered(1, *SHAPE), *answered(1, *SHAPE, ready())],
        ),
    ],
    "a Describe of the pooler's own that fails in front of one of the client's": [
        *prepared(1, b"p1"),
        *lease(
            1,
            [say.describe_statement(b"s"), say.SYNC],
            [say.parse(TEXT, b"p1"), say.describe_statement(b"p1")],
            own(say.PARSED, SHAPE[0], server=8),
            answered(1, say.error(), server=8),
            said(Side.SERVER, 8, say.describe_statement(b"s"), say.SYNC),
            answered(1, ready(), server=8),
            server=8,
        ),
    ],
    "a Describe of the pooler's own in front of one of what the client has not": lease(
        1,
        [say.parse(TEXT, b"s"), say.describe_statement(b"none"), say.SYNC],
        [say.parse(TEXT, b"p1"), say.describe_statement(b"p1"), say.describe_statement(b"none"), say.SYNC],
        [*answered(1, say.PARSED), *own(*SHAPE), *answered(1, say.error(), ready())],
    ),
    "a Parse of a name that is taken, and what it stood for before": [
        *prepared(1, b"p1"),
        *lease(
            1,
            [say.parse(ANOTHER, b"s"), say.describe_statement(b"s"), *use(b"s")],
            [say.parse(TEXT, b"s"), say.parse(ANOTHER, b"s"), say.describe_statement(b"p1"), *use(b"p1")],
            [*own(say.PARSED), *answered(1, say.error(), ready())],
        ),
    ],
    "a Sync in a COPY that fails, which the server does not get, and another behind it": [
        *COPY_BEGUN,
        *said(Side.CLIENT, 1, say.SYNC),
        *answered(1, say.error(), ready()),
        *said(Side.CLIENT, 1, say.SYNC, say.function_call(b"1")),
        *said(Side.SERVER, 7, say.SYNC, say.function_call(b"1")),
        *answered(1, ready(), say.FUNCTION_RESULT, ready()),
        Released(1, 7),
    ],
    "a statement that is prepared while nobody can tell which Syncs are answered": [
        *COPY_BEGUN,
        *said(Side.CLIENT, 1, say.SYNC),
        *answered(1, say.error(), ready()),
        *said(Side.CLIENT, 1, say.parse(TEXT, b"s"), say.SYNC),
        *said(Side.SERVER, 7, say.parse(TEXT, b"p1"), say.SYNC),
        *answered(1, say.PARSED, ready()),
        Released(1, 7),
        *lease(
            1,
            [say.parse(ANOTHER, b"t"), say.describe_statement(b"s"), say.SYNC],
            [say.parse(ANOTHER, b"p2"), say.describe_statement(b"p2"), say.describe_statement(b"p1"), say.SYNC],
            [*answered(1, say.PARSED), *own(*SHAPE), *answered(1, *SHAPE, ready())],
        ),
    ],
    "two Describes that are the same, of which the second fails": lease(
        1,
        [say.parse(TEXT, b"s"), say.describe_statement(b"s"), say.describe_statement(b"s"), say.SYNC],
        [say.parse(TEXT, b"s"), *[say.describe_statement(b"s")] * 3, say.SYNC],
        [*own(say.PARSED, *SHAPE, SHAPE[0]), *said(Side.CLIENT, 1, say.PARSED, SHAPE[0])],
        answered(1, say.error(), ready()),
    ),
}

IN_COPY = [say.copy_data(b"1\n"), say.copy_data(b"2\n"), say.COPY_DONE]

WRONG: dict[str, tuple[str, list[Event]]] = {
    "a server speaks out of turn": ("conformance", said(Side.SERVER, 7, DONE)),
    "the pooler speaks out of turn": ("conformance", said(Side.CLIENT, 1, ready())),
    "a row from nowhere": (
        "isolation",
        [*asked(1), *said(Side.SERVER, 7, *REPLY), *said(Side.CLIENT, 1, REPLY[0], backend("DataRow", values=(b"x",)))],
    ),
    "the reply to the pooler's own statement": (
        "isolation",
        [*said(Side.CLIENT, 1, QUERY), Leased(1, 7), *CLEANED, *said(Side.CLIENT, 1, DISCARDED)],
    ),
    "a notice in reply to the pooler's own statement": (
        "isolation",
        [
            *said(Side.SERVER, 7, OTHER, say.NOTICE, DISCARDED, ready()),
            *said(Side.CLIENT, 1, QUERY),
            Leased(1, 7),
            *said(Side.CLIENT, 1, say.NOTIFICATION),
        ],
    ),
    "replies out of order": (
        "transparency",
        [*asked(1), *said(Side.SERVER, 7, *REPLY), *said(Side.CLIENT, 1, REPLY[0], DONE)],
    ),
    "a reply kept back": (
        "transparency",
        [*asked(1), *said(Side.SERVER, 7, *REPLY, ready()), *said(Side.CLIENT, 1, *REPLY), Released(1, 7)],
    ),
    "a block rolled back in silence": (
        "transparency",
        [
            *asked(1, BLOCK),
            *answered(1, *BEGUN),
            *own(DONE, ready(b"T")),
            *said(Side.SERVER, 7, ROLLBACK),
            *ROLLED_BACK,
            *said(Side.CLIENT, 1, ready()),
        ],
    ),
    "a block rolled back, and called a failed one": (
        "transparency",
        [
            *asked(1, BLOCK),
            *answered(1, *BEGUN),
            *own(DONE, ready(b"T")),
            *said(Side.SERVER, 7, ROLLBACK),
            *ROLLED_BACK,
            *said(Side.CLIENT, 1, ERROR, ready(b"E")),
        ],
    ),
    "a Sync behind the end of a COPY that the server does not get": (
        "transparency",
        [
            *COPY_BEGUN,
            *said(Side.CLIENT, 1, say.COPY_DONE, say.SYNC, say.function_call(b"1")),
            *said(Side.SERVER, 7, say.COPY_DONE),
            *answered(1, say.complete(b"COPY 0"), ready()),
            *said(Side.SERVER, 7, say.function_call(b"1")),
        ],
    ),
    "handed on in a transaction": (
        "release",
        [
            *asked(1, frontend("Query", query=b"BEGIN")),
            *answered(1, backend("CommandComplete", tag=b"BEGIN"), ready(b"T")),
            Released(1, 7),
            Leased(2, 7),
        ],
    ),
    "handed on with a reply owed": ("release", [*asked(1), Gone(Side.CLIENT, 1), Released(1, 7), Leased(2, 7)]),
    "leased twice": ("exclusion", [Leased(1, 7), Leased(2, 7)]),
    "another time zone": ("fidelity", [*said(Side.SERVER, 7, IN_TOKYO), *CLEANED, *asked(1)]),
    "another time zone that the client has not heard of when the server is ready": (
        "fidelity",
        [*said(Side.SERVER, 7, IN_TOKYO), *asked(1), *answered(1, *REPLY, ready())],
    ),
    "a parameter that the server reports in a reply, kept back": (
        "fidelity",
        [*asked(1), *said(Side.SERVER, 7, IN_TOKYO), *answered(1, *REPLY, ready())],
    ),
    "a parameter that no server has reported": (
        "fidelity",
        [*said(Side.CLIENT, 1, QUERY), Leased(1, 7), *said(Side.CLIENT, 1, IN_TOKYO)],
    ),
    "a statement of the pooler's own that reaches the client": (
        "isolation",
        [
            *said(Side.CLIENT, 1, QUERY),
            Leased(1, 7),
            *said(Side.SERVER, 7, *RUN, *RUN_DONE),
            *said(Side.CLIENT, 1, DONE),
        ],
    ),
    "a Bind of the pooler's own to what a client has prepared": (
        "transparency",
        [
            *prepared(1, b"p1"),
            *said(Side.CLIENT, 2, QUERY),
            Leased(2, 7),
            *said(Side.SERVER, 7, say.parse(TEXT, b"p2"), say.bind(b"mine", statement=b"p2")),
        ],
    ),
    "a setting of the client's that the server does not have": (
        "fidelity",
        [
            *asked(1, say.query(b"SET TimeZone TO 'Asia/Tokyo'")),
            *answered(1, IN_TOKYO),
            *answered(1, say.complete(b"SET"), ready()),
            Released(1, 7),
            *said(Side.CLIENT, 1, QUERY),
            Leased(1, 8),
            *said(Side.SERVER, 8, QUERY),
        ],
    ),
    "the text of another client": (
        "statements",
        [*prepared(1, b"p1"), *prepared(2, b"p2", ANOTHER), *used(2, b"p1")],
    ),
    "the text that the client has closed": (
        "statements",
        [
            *prepared(1, b"p1"),
            *said(Side.CLIENT, 1, say.close_statement(b"s")),
            *said(Side.CLIENT, 1, say.CLOSED),
            *lease(1, [say.SYNC], [say.SYNC], answered(1, ready())),
            *prepared(1, b"p2", ANOTHER),
            *used(1, b"p1"),
        ],
    ),
    "other types of parameters": (
        "statements",
        [*prepared(1, b"p1", types=(23,)), *prepared(2, b"p2", types=(25,)), *used(2, b"p1")],
    ),
    "a Parse of the pooler's own with another text": (
        "statements",
        [*prepared(1, b"p1"), *used(1, b"p1", say.parse(ANOTHER, b"p1"), replies=(say.PARSED,), server=8)],
    ),
    "a Parse with another text in the client's place": (
        "statements",
        lease(
            1,
            [say.parse(TEXT, b"s"), *use(b"s")],
            [say.parse(ANOTHER, b"p1"), *use(b"p1")],
            answered(1, say.PARSED, *RAN),
        ),
    ),
    "what another client has prepared under the same name": ("statements", [*prepared(1, b"s"), *used(2, b"s")]),
    "the unnamed statement of another client": (
        "statements",
        [
            *lease(1, [say.parse(TEXT), say.SYNC], [say.parse(TEXT), say.SYNC], answered(1, say.PARSED, ready())),
            *lease(2, use(b""), use(b""), answered(2, *RAN)),
        ],
    ),
    "the unnamed statement behind a Query": (
        "statements",
        [
            *lease(1, [say.parse(TEXT), say.SYNC], [say.parse(TEXT), say.SYNC], answered(1, say.PARSED, ready())),
            *asked(1),
            *answered(1, *REPLY, ready()),
            Released(1, 7),
            *lease(
                1,
                use(b""),
                [say.parse(TEXT), *use(b"")],
                [*own(say.PARSED, server=8), *answered(1, *RAN, server=8)],
                server=8,
            ),
        ],
    ),
    "the description of another client's statement": (
        "statements",
        [
            *prepared(1, b"p1"),
            *prepared(2, b"p2", ANOTHER),
            *lease(
                2,
                [say.describe_statement(b"s"), say.SYNC],
                [say.describe_statement(b"p1"), say.SYNC],
                answered(2, *SHAPE, ready()),
            ),
        ],
    ),
    "a name that nobody has prepared": ("statements", [*prepared(1, b"p1"), *used(1, b"p3")]),
    **{
        f"a Bind with {what}": (
            "transparency",
            [*prepared(1, b"p1"), *said(Side.CLIENT, 1, *use(b"s")), Leased(1, 7), *said(Side.SERVER, 7, bind)],
        )
        for what, bind in {
            "another value": use(b"p1", b"yours")[0],
            "another portal": use(b"p1", portal=b"p")[0],
            "other formats of results": use(b"p1", formats=(1,))[0],
        }.items()
    },
    "a Query left out behind one of the pooler's own that has not failed": (
        "isolation",
        [
            *said(Side.CLIENT, 1, QUERY, QUERY, frontend("Query", query=b"SELECT 2")),
            Leased(1, 7),
            *CLEANED,
            *said(Side.SERVER, 7, QUERY, frontend("Query", query=b"SELECT 2")),
            *answered(1, *REPLY, ready()),
            *said(Side.SERVER, 7, *REPLY),
            *said(Side.CLIENT, 1, REPLY[0]),
        ],
    ),
    "an Execute that nobody asked for": (
        "transparency",
        [*prepared(1, b"p1"), *said(Side.CLIENT, 1, *use(b"s")), Leased(1, 7), *said(Side.SERVER, 7, use(b"p1")[1])],
    ),
    "data of a COPY left out": (
        "transparency",
        [
            *asked(1, say.query(b"COPY t FROM STDIN")),
            *answered(1, say.copy_begins("CopyInResponse")),
            *said(Side.CLIENT, 1, *IN_COPY),
            *said(Side.SERVER, 7, IN_COPY[1]),
        ],
    ),
    "the shape that the pooler asked for itself": (
        "isolation",
        [
            *prepared(1, b"p1"),
            *said(Side.CLIENT, 1, *use(b"s")),
            Leased(1, 7),
            *said(Side.SERVER, 7, say.describe_statement(b"p1"), *use(b"p1")),
            *said(Side.SERVER, 7, *SHAPE),
            *said(Side.CLIENT, 1, SHAPE[0]),
        ],
    ),
    "a ParseComplete for nothing": (
        "isolation",
        [
            *prepared(1, b"p1"),
            *said(Side.CLIENT, 1, *use(b"s")),
            Leased(1, 7),
            *said(Side.SERVER, 7, say.parse(TEXT, b"p2"), *use(b"p1"), say.PARSED),
            *said(Side.CLIENT, 1, say.PARSED),
        ],
    ),
    "a CloseComplete for a portal that no server has closed": (
        "isolation",
        [*said(Side.CLIENT, 1, say.close_portal(b"p"), say.SYNC), Leased(1, 7), *said(Side.CLIENT, 1, say.CLOSED)],
    ),
    "a transaction status that the server does not have": (
        "transparency",
        [
            *asked(1, frontend("Query", query=b"BEGIN")),
            *said(Side.SERVER, 7, backend("CommandComplete", tag=b"BEGIN"), ready(b"T")),
            *said(Side.CLIENT, 1, ERROR, ready()),
        ],
    ),
    "a row dropped in front of a ReadyForQuery of the pooler's own": (
        "transparency",
        [*asked(1), *said(Side.SERVER, 7, *REPLY, ready()), *said(Side.CLIENT, 1, ERROR, ready())],
    ),
    "a cancel request for somebody else's query": ("cancel", [*asked(1), Canceled(2, 7)]),
    "a cancel request behind the lease": (
        "cancel",
        [*asked(1), *answered(1, *REPLY, ready()), Released(1, 7), Canceled(1, 7)],
    ),
}


def broken(events: list[Event]) -> list[str]:
    judge = PoolingJudge()
    return [violation.rule.name for event in [*BEGIN, *events] for violation in judge.hear(event)]


@pytest.mark.parametrize("name", LEGAL)
def test_a_right_pooler_breaks_no_rule(name: str) -> None:
    assert broken(LEGAL[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_each_way_to_be_wrong_breaks_its_rule(name: str) -> None:
    rule, events = WRONG[name]
    found = broken(events)
    of_one_connection = [name for name in found if name in CONVERSATION]
    if rule == "conformance":
        assert of_one_connection
    else:
        assert [name for name in found if name not in of_one_connection] == [rule]


def test_every_rule_is_broken_by_something_here() -> None:
    assert {rule for rule, _ in WRONG.values()} == {rule.name for rule in RULES}


def test_the_senders_of_violations_are_told() -> None:
    judge = PoolingJudge()
    hear: Callable[[Event], object] = judge.hear
    for event in BEGIN:
        hear(event)
    (violation,) = judge.hear(said(Side.SERVER, 7, DONE)[0])
    assert violation.sender is Sender.BACKEND
