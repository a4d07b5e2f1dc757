"""Messages that nobody asked for."""

from __future__ import annotations

from spec.conformance.requests import NAME, SYNC, query, run
from spec.conformance.scripts import FIRST, IN_BLOCK, READY, Open, Script, Theme, ask, done, given, ran

ASYNC = "protocol-flow#PROTOCOL-ASYNC"
SECOND = "second"
LISTEN = given(query(f"LISTEN {NAME}"), answer=done("LISTEN"))
HEARD = ask(answer=(f"NotificationResponse {NAME} news",))
NOTIFY = given(query(f"NOTIFY {NAME}, 'news'"), answer=done("NOTIFY"), on=SECOND)

THEME = Theme(
    "asynchronous",
    "notifications, changes of parameters, notices",
    (
        Script(
            "a parameter that is set is reported",
            ASYNC,
            (
                ask(
                    query("SET application_name TO 'conforming'"),
                    answer=("CommandComplete SET", "ParameterStatus application_name=conforming", READY),
                ),
            ),
        ),
        Script(
            "a parameter that is set in a series is reported",
            ASYNC,
            (
                ask(
                    *run("SET application_name TO 'conforming'"),
                    SYNC,
                    answer=(*ran(tag="SET"), "ParameterStatus application_name=conforming", READY),
                ),
            ),
        ),
        Script(
            "a parameter that is rolled back is reported",
            ASYNC,
            (
                Open(parameters=(("application_name", "before"),)),
                given(query("BEGIN"), answer=("CommandComplete BEGIN", IN_BLOCK)),
                given(
                    query("SET application_name TO 'within'"),
                    answer=("CommandComplete SET", "ParameterStatus application_name=within", IN_BLOCK),
                ),
                ask(
                    query("ROLLBACK"),
                    answer=("CommandComplete ROLLBACK", "ParameterStatus application_name=before", READY),
                ),
            ),
            needs=("transaction blocks",),
        ),
        Script(
            "a notice in a series",
            ASYNC,
            (
                ask(
                    *run("DO $$ BEGIN RAISE NOTICE 'look'; END $$"),
                    SYNC,
                    answer=("ParseComplete", "BindComplete", "NoticeResponse look", "CommandComplete DO", READY),
                ),
            ),
        ),
        Script(
            "a session hears its own notification",
            "sql-notify",
            (
                LISTEN,
                ask(
                    query(f"NOTIFY {NAME}, 'news'"),
                    answer=("CommandComplete NOTIFY", f"NotificationResponse {NAME} news", READY),
                ),
            ),
        ),
        Script("a session that is idle hears another one's notification", "sql-notify", (LISTEN, NOTIFY, HEARD)),
        Script(
            "a notification waits for the end of the listener's block",
            "sql-notify",
            (
                LISTEN,
                given(query("BEGIN"), answer=("CommandComplete BEGIN", IN_BLOCK)),
                NOTIFY,
                ask(
                    query("COMMIT"),
                    answer=("CommandComplete COMMIT", f"NotificationResponse {NAME} news", READY),
                    on=FIRST,
                ),
            ),
            needs=("transaction blocks",),
        ),
        Script(
            "a notification is sent when its block is committed",
            "sql-notify",
            (
                LISTEN,
                given(query("BEGIN"), answer=("CommandComplete BEGIN", IN_BLOCK), on=SECOND),
                given(query(f"NOTIFY {NAME}, 'news'"), answer=("CommandComplete NOTIFY", IN_BLOCK), on=SECOND),
                given(query("COMMIT"), answer=done("COMMIT"), on=SECOND),
                HEARD,
            ),
            needs=("transaction blocks",),
        ),
        Script(
            "nothing is heard after UNLISTEN",
            "sql-unlisten",
            (
                LISTEN,
                given(query(f"UNLISTEN {NAME}"), answer=done("UNLISTEN")),
                ask(query(f"NOTIFY {NAME}, 'news'"), answer=done("NOTIFY")),
                ask(
                    query(f"SELECT count(*) FROM pg_listening_channels() AS c WHERE c = '{NAME}'"),
                    answer=("RowDescription", "DataRow 0", "CommandComplete SELECT 1", READY),
                ),
            ),
        ),
    ),
    leaves_state=True,
)
