"""Settings are the client's: they outlive the transaction on whichever server connection, and nobody else sees them.

Most tests play a script on a direct connection and then through PgPooler, and nothing may differ.  Meanwhile the client
changes its server connection, and two others with settings of their own look whether they are still theirs.
"""

from __future__ import annotations

import pytest

from pgpooler.demo.postgres import PostgresServer
from tests.integration.clients import Script, Switch, answers, played
from tests.integration.conftest import DataPlanes
from tests.integration.wire import SYNC, Address, Wire, bind, execute, parse, query, row_values

IN_STATEMENT_MODE = (
    "SET", "SET in a series", "several in one Query", "RESET", "DISCARD ALL", "set_config with values", "SET ROLE",
    "SET SESSION AUTHORIZATION",
)  # fmt: skip
"""What is asked in statement mode too, which differs in when a request is served and not in what becomes of it."""
SHOWN = (
    "work_mem", "TimeZone", "DateStyle", "IntervalStyle", "search_path", "application_name", "client_encoding",
    "statement_timeout", "default_transaction_read_only", "default_transaction_isolation", "session_replication_role",
    "role", "session_authorization", "is_superuser", "my.setting",
)  # fmt: skip
SHOW = query(
    "SELECT current_user, session_user, "
    + ", ".join(f"coalesce(current_setting('{name}', true), '')" for name in SHOWN)
)
"""A setting of a program's own that was never set is NULL, but once it is known to a server connection it stays so."""
STARTED = {
    "application_name": "it's mine",
    "search_path": '"a""b", public',
    "options": "-c work_mem=5MB -c my.setting=started --DateStyle=German -c default_transaction_read_only=off",
}
"""What a client may ask for at its start."""


def said(*texts: str) -> list[bytes]:
    """Each text as a Query, and behind it the question what holds now."""
    return [request for text in texts for request in (query(text), SHOW)]


def set_by_values(name: bytes, value: bytes, is_local: bytes = b"f") -> bytes:
    return parse("SELECT set_config($1, $2, $3)") + bind(name, value, is_local) + execute() + SYNC


SCRIPTS: dict[str, Script] = {
    "SET": said("SET work_mem = '7MB'", "SET TimeZone TO 'Asia/Tokyo'", "SET SESSION statement_timeout = 60000"),
    "SET in a series": [parse("SET work_mem = '7MB'") + bind() + execute() + SYNC, SHOW, SHOW],
    "SET that was prepared": [
        parse("SET work_mem = '7MB'", name=b"s") + SYNC,
        bind(name=b"s") + execute() + SYNC,
        *said("SET work_mem = '8MB'"),
        bind(name=b"s") + execute() + SYNC,
        SHOW,
    ],
    "SET in other words": said(
        "SET TIME ZONE 'Asia/Tokyo'",
        "SET TIME ZONE INTERVAL '-03:00' HOUR TO MINUTE",
        "SET TIME ZONE LOCAL",
        "SET SCHEMA 'one'",
        "SET NAMES 'LATIN1'",
        "SET NAMES",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
        "SET XML OPTION DOCUMENT",
        "set/**/Work_Mem/*;*/=--\n'9MB'",
        "SET \"work_mem\" = 12345",
        "SET search_path TO a, \"B\", 'c d', ''",
        "SET search_path = ''",
    ),
    "SET that is refused": said(
        "SET work_mem = 'plenty'", "SET no_such_setting = 1", "SET TimeZone = 'nowhere'", "SET server_version = 1"
    ),
    "SET LOCAL outside of a block": said("SET LOCAL work_mem = '7MB'"),
    "several in one Query": said(
        "SET work_mem = '7MB'; SET TimeZone = 'Asia/Tokyo'; SELECT 1",
        "SET work_mem = '8MB'; SELECT 1 / 0",
        "BEGIN; SET work_mem = '9MB'; COMMIT; BEGIN; SET TimeZone = 'Asia/Kabul'; ROLLBACK",
        "SET LOCAL work_mem = '10MB'; SELECT 1",
    ),
    "RESET": said("SET work_mem = '7MB'", "SET application_name = ''", "RESET work_mem", "RESET application_name"),
    "RESET of what was not set": said("RESET work_mem", "RESET search_path", "RESET TIME ZONE", "RESET my.setting"),
    "SET TO DEFAULT": said(
        "SET work_mem = '7MB'", "SET search_path = x", "SET work_mem TO DEFAULT", "SET search_path = DEFAULT"
    ),
    "RESET ALL": said(
        "SET work_mem = '7MB'", "SET my.setting = 'x'", "SET DateStyle = 'ISO'", "RESET ALL", "SET work_mem = '8MB'"
    ),
    "DISCARD ALL": said(
        "SET work_mem = '7MB'", "SET ROLE pg_monitor", "SET my.setting = 'x'", "DISCARD ALL", "SET work_mem = '8MB'"
    ),
    "set_config": said(
        "SELECT set_config('work_mem', '7MB', false)",
        "SELECT set_config('TimeZone', 'Asia/Tokyo', true)",
        "SELECT pg_catalog.set_config('search_path', '', false)",
        "SELECT set_config('work' || '_mem', (6 + 2) || 'MB', now() IS NULL)",
        "SELECT set_config('work_mem', '9MB', false), 1 / 0",
    ),
    "set_config with values": [
        set_by_values(b"work_mem", b"7MB"),
        SHOW,
        set_by_values(b"search_path", b'"$user", b"x""y"'),
        SHOW,
        set_by_values(b"work_mem", b"8MB", b"t"),
        SHOW,
        set_by_values(b"my.setting", b"it's"),
        SHOW,
        set_by_values(b"my.setting", b""),
        SHOW,
    ],
    "SET in disguise": said(
        "UPDATE pg_settings SET setting = '7168' WHERE name = 'work_mem'",
        "DO $$ BEGIN SET TimeZone = 'Asia/Tokyo'; END $$",
        "CREATE FUNCTION undone() RETURNS void LANGUAGE sql SET work_mem = '8MB' AS 'SELECT'",
        "SELECT undone()",
        "DROP FUNCTION undone",
    ),
    "settings of a program's own": said(
        "SET my.setting = 'x'", "SET MY.SETTING = 'y'", "SET my.setting = '  two''s \\ \" $$ ;'", "SET my.setting = ''"
    ),
    "SET ROLE": said(
        "SET ROLE pg_monitor", "SET work_mem = '7MB'", "RESET ROLE", "SET ROLE pg_monitor", "SET ROLE NONE"
    ),
    "SET ROLE and RESET ALL": said("SET ROLE pg_monitor", "SET work_mem = '7MB'", "RESET ALL"),
    "SET SESSION AUTHORIZATION": said(
        "SET SESSION AUTHORIZATION pg_monitor",
        "SET ROLE pg_read_all_stats",
        "SET work_mem = '7MB'",
        "SET session_replication_role = 'replica'",
        "RESET ROLE",
        "SET SESSION AUTHORIZATION DEFAULT",
    ),
    "SET of the superuser, who becomes another": said(
        "SET session_replication_role = 'replica'",
        "SET ROLE pg_monitor",
        "RESET session_replication_role",
        "RESET ROLE",
    ),
    "text that is not ASCII": said(
        "SET application_name = 'größer 東京'",
        "SET search_path = 'größer', \"東京\"",
        "SET my.setting = 'größer 東京 ソ'",
    ),
    "a text that the client's encoding lacks": said(
        "SET my.setting = '東京'", "SET client_encoding = 'LATIN1'", "SET work_mem = '7MB'", "RESET client_encoding"
    ),
    "what is long": said(
        f"SET my.setting = '{'long ' * 4000}'", f"SET search_path = {', '.join(f's{n}' for n in range(500))}"
    ),
}  # fmt: skip
BLOCKS: dict[str, Script] = {
    "SET that is committed": said("BEGIN", "SET work_mem = '7MB'", "SET TimeZone = 'Asia/Tokyo'", "COMMIT"),
    "SET that is rolled back": said("SET work_mem = '6MB'", "BEGIN", "SET work_mem = '7MB'", "ROLLBACK"),
    "SET in a block that fails": [
        *said("BEGIN", "SET TimeZone = 'Asia/Tokyo'"),
        query("SELECT 1 / 0"),
        *said("COMMIT"),
    ],
    "SET LOCAL": said("SET work_mem = '6MB'", "BEGIN", "SET LOCAL work_mem = '7MB'", "COMMIT"),
    "SET and SET LOCAL": said("BEGIN", "SET work_mem = '6MB'", "SET LOCAL work_mem = '7MB'", "COMMIT"),
    "SET LOCAL and SET": said("BEGIN", "SET LOCAL work_mem = '7MB'", "SET work_mem = '6MB'", "COMMIT"),
    "ROLLBACK TO": said(
        "BEGIN", "SET work_mem = '6MB'", "SAVEPOINT s", "SET work_mem = '7MB'", "ROLLBACK TO s", "SAVEPOINT t",
        "SET DateStyle = 'SQL'", "RELEASE t", "COMMIT",
    ),
    "ROLLBACK TO behind an error": [
        *said("BEGIN", "SET work_mem = '6MB'", "SAVEPOINT s", "SET TimeZone = 'Asia/Tokyo'"),
        query("SELECT 1 / 0"),
        *said("ROLLBACK TO s", "COMMIT"),
    ],
    "RESET that is rolled back": said("SET work_mem = '6MB'", "BEGIN", "RESET work_mem", "RESET ALL", "ROLLBACK"),
    "SET ROLE that is rolled back": said(
        "BEGIN", "SET ROLE pg_monitor", "ROLLBACK", "BEGIN", "SET LOCAL ROLE pg_monitor", "COMMIT"
    ),
    "SET SESSION AUTHORIZATION in a block": said("BEGIN", "SET SESSION AUTHORIZATION pg_monitor", "COMMIT", "SELECT 1"),
    "set_config in a block": said(
        "BEGIN", "SELECT set_config('my.setting', 'x', true)", "SELECT set_config('work_mem', '7MB', false)", "COMMIT"
    ),
    "chains": said(
        "BEGIN", "SET work_mem = '7MB'", "COMMIT AND CHAIN", "SET work_mem = '8MB'", "ROLLBACK AND CHAIN", "COMMIT"
    ),
    "what only the transaction has": said(
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "SET TRANSACTION READ WRITE",
        "COMMIT",
        "SET TRANSACTION READ ONLY",
    ),
}  # fmt: skip
ENCODED: dict[str, list[bytes]] = {
    # what is no UTF8, or has second bytes that are those of a backslash
    "LATIN1": [b"SET my.setting = 'gr\xf6\xdfer'", b'SET search_path = \'gr\xf6\xdfer\', "\xe9"""'],
    "SJIS": [
        b"SET my.setting = '\x83\x5c'",
        b'SET search_path = "\x83\x5c", "\x95\x5c"""',
        b"SELECT set_config('my.setting', '\x95\x5c''', false)",
    ],
    "BIG5": [b"SET my.setting = '\xa5\x5c\xb3\x5c'", b'SET search_path = "\xa5\x5c"'],
}

# -- stages ------------------------------------------------------------------------------------------------------------

OWN = {"application_name": "another", "TimeZone": "Asia/Kabul", "options": "-c my.setting=another"}
OWN_TOO = query("SET work_mem = '3MB'; SET search_path = 'another', \"A\"; SET ROLE pg_signal_backend")


class Others:
    """Two clients of the same pool that change nothing: one with settings of its own, and one with none."""

    def __init__(self, address: Address, server: PostgresServer, database: str) -> None:
        self.clients = [Wire(address).log_in(database=database, **startup) for startup in (OWN, {})]
        self.expected = []
        for client, startup in zip(self.clients, (OWN, {}), strict=True):
            with Wire((server.host, server.port)).log_in(database=database, **startup) as direct:
                for one in (direct, client) if startup else ():
                    answers(one, OWN_TOO)
                self.expected.append((row_values(answers(direct, SHOW)), direct.told))

    def __enter__(self) -> Others:
        return self

    def __exit__(self, *exception: object) -> None:
        for client in self.clients:
            client.close()

    def assert_undisturbed(self) -> None:
        for client, (shown, told) in zip(self.clients, self.expected, strict=True):
            assert row_values(answers(client, SHOW)) == shown
            assert client.told == told


def assert_settings_as_direct(
    script: Script, address: Address, server: PostgresServer, database: str, **startup: str
) -> None:
    """Play the script without a change of the server connection, with one after every request, and every other."""
    with Wire((server.host, server.port)).log_in(database=database, **startup) as client:
        expected = played(client, script, server, database)
    with Switch(address, database) as switch, Others(address, server, database) as others:
        for every in (0, 1, 2):
            requests = 0

            def between(every: int = every) -> None:
                nonlocal requests
                requests += 1
                if every and requests % every == 0:
                    others.assert_undisturbed()
                    switch.turn()

            with Wire(address).log_in(database=database, **startup) as client:
                heard = played(client, script, server, database, between)
            for step, (mine, right) in enumerate(zip(heard, expected, strict=True)):
                assert mine == right, f"request {step}, another server connection after every {every}"
            others.assert_undisturbed()


# -- tests -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "case"),
    [("transaction", case) for case in SCRIPTS] + [("statement", case) for case in IN_STATEMENT_MODE],
)
def test_a_setting_is_what_it_is_on_a_direct_connection_and_for_nobody_else(
    mode: str, case: str, data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """W19, bugs 3, 4 and 5: PgBouncer #452, #879, PgDog #687, #1055, #1298, #1299, #1341."""
    assert_settings_as_direct(SCRIPTS[case], data_planes(mode).address, postgres, shared_database, **STARTED)


@pytest.mark.parametrize("case", BLOCKS)
def test_a_setting_follows_its_transaction(
    case: str, data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """W19, bugs 3 and 4: PgBouncer #452, PgDog #1298, #1341."""
    assert_settings_as_direct(BLOCKS[case], data_planes().address, postgres, shared_database, **STARTED)


@pytest.mark.parametrize("case", ["RESET", "RESET of what was not set", "SET TO DEFAULT", "RESET ALL", "DISCARD ALL"])
def test_reset_returns_to_what_the_client_asked_for_at_its_start_in_session_mode_too(
    case: str, data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """W19, bug 3."""
    with Wire((postgres.host, postgres.port)).log_in(database=shared_database, **STARTED) as client:
        expected = played(client, SCRIPTS[case], postgres, shared_database)
    address = data_planes("session").address
    for _ in range(2):
        with Wire(address).log_in(database=shared_database, **STARTED) as client:
            assert played(client, SCRIPTS[case], postgres, shared_database) == expected


@pytest.mark.parametrize("encoding", ENCODED)
def test_a_setting_in_the_clients_encoding_is_byte_for_byte_the_same(
    encoding: str, data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """W19, bug 5."""
    script: Script = [request for text in ENCODED[encoding] for request in (query(text), SHOW)]
    address = data_planes().address
    assert_settings_as_direct(script, address, postgres, shared_database, client_encoding=encoding)
    # Without search_path: what PostgreSQL told of it before does not become wrong by another encoding, but may be told.
    script = [request for text in ENCODED[encoding] if b"path" not in text for request in (query(text), SHOW)]
    script = [query(f"SET client_encoding = '{encoding}'"), *script, query("RESET client_encoding"), SHOW]
    assert_settings_as_direct(script, address, postgres, shared_database)
