"""Conversations with a real server that between them say everything the grammar knows: scripts for a raw client.

Each script is given a session and leaves it idle, outside any transaction, with every reply read.  They use no
tables but those of `PREPARATION` and temporary ones, so that each can be run on its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from spec.codec import Instance, encode
from spec.codec import frontend as say
from tests.integration.wire import Wire

Script = Callable[[Wire], None]

PREPARATION = (
    "CREATE TABLE pair (a int PRIMARY KEY, b text)",
    "CREATE TABLE child (a int REFERENCES pair DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TABLE ruled (a int)",
    "CREATE RULE echo AS ON INSERT TO ruled DO ALSO (SELECT 'added', new.a; SELECT 'twice')",
    "CREATE TABLE replaced (a int)",
    "CREATE RULE instead AS ON INSERT TO replaced DO INSTEAD SELECT 'nothing' WHERE false",
    "CREATE PROCEDURE noisy(INOUT x int) LANGUAGE plpgsql AS $$ begin raise notice 'called'; x := x + 1; end $$",
    "CREATE PROCEDURE committing() LANGUAGE plpgsql AS $$ begin insert into ruled values (1); commit; end $$",
)

SIMPLE = (
    b"SELECT 1",
    b"SELECT",
    b"SELECT 1 WHERE false",
    b"SELECT generate_series(1, 5), 'x'",
    b"",
    b" ; ; -- nothing",
    b"SELECT 1; SELECT 2, 3; ; SELECT 4 WHERE false",
    b"INSERT INTO pair VALUES (1, 'x'), (2, 'y')",
    b"INSERT INTO pair VALUES (3, 'z') RETURNING a, b",
    b"INSERT INTO pair VALUES (4, 'z') RETURNING a; SELECT 1",
    b"UPDATE pair SET b = 'w' WHERE a > 1 RETURNING a",
    b"UPDATE pair SET b = 'w'",
    b"WITH gone AS (DELETE FROM pair WHERE a = 2 RETURNING a) SELECT * FROM gone",
    b"DELETE FROM pair RETURNING *",
    b"DELETE FROM pair",
    b"MERGE INTO pair USING (SELECT 1 AS a) s ON pair.a = s.a WHEN NOT MATCHED THEN INSERT VALUES (s.a, 'm')",
    b"TRUNCATE pair, child",
    b"INSERT INTO ruled VALUES (1), (2)",
    b"INSERT INTO ruled SELECT generate_series(1, 3)",
    b"INSERT INTO ruled VALUES (1) RETURNING a",
    b"INSERT INTO replaced VALUES (1)",
    b"CREATE TEMPORARY TABLE made AS SELECT generate_series(1, 4) AS a",
    b"SELECT a INTO TEMPORARY copied FROM made WHERE a > 1",
    b"CREATE MATERIALIZED VIEW seen AS SELECT 1; REFRESH MATERIALIZED VIEW seen; DROP MATERIALIZED VIEW seen",
    b"PREPARE p AS SELECT a FROM made; EXECUTE p; CREATE TEMPORARY TABLE again AS EXECUTE p; DEALLOCATE p",
    b"PREPARE p AS INSERT INTO pair VALUES (7, 'p') RETURNING a; EXECUTE p; DEALLOCATE p; DELETE FROM pair",
    b"EXPLAIN SELECT 1",
    b"SHOW work_mem",
    b"EXPLAIN (COSTS OFF) SELECT * FROM pair JOIN child USING (a)",
    b"SET work_mem TO '5MB'; RESET work_mem",
    b"VALUES (1), (2); TABLE made",
    b"CALL noisy(1)",
    b"CALL committing()",
    b"DO $$ begin raise warning 'look'; commit; end $$",
    b"BEGIN; DECLARE c CURSOR FOR SELECT generate_series(1, 9); FETCH 3 FROM c; MOVE 2 FROM c; FETCH ALL FROM c; END",
    b"SELECT 1/0",
    b"SELECT 1; SELECT 1/0; SELECT 2",
    b"SELECT 10 / (4 - generate_series(1, 5))",
    b"SELEC",
    b"DISCARD ALL",
    b"LISTEN here; NOTIFY here, 'there'; UNLISTEN *",
)

TRANSACTIONS = (
    b"BEGIN",
    b"BEGIN",
    b"SELECT 1",
    b"SAVEPOINT s",
    b"SELECT 1/0",
    b"SELECT 2",
    b"",
    b"ROLLBACK TO SAVEPOINT s",
    b"RELEASE s",
    b"COMMIT AND CHAIN",
    b"SELECT 3",
    b"ROLLBACK AND CHAIN",
    b"ROLLBACK",
    b"ROLLBACK",
    b"COMMIT",
    b"START TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    b"SELECT 1/0",
    b"COMMIT",
    b"BEGIN; INSERT INTO child VALUES (99)",
    b"COMMIT",
    b"BEGIN; INSERT INTO child VALUES (99); END",
    b"INSERT INTO child VALUES (99)",
    b"BEGIN; PREPARE TRANSACTION 'one'",
    b"ROLLBACK PREPARED 'one'",
    b"BEGIN; SELECT 1/0; COMMIT",
    b"PREPARE TRANSACTION 'two'",
    b"BEGIN; COMMIT; SELECT 1/0",
    b"SELECT 1; BEGIN; SELECT 2",
    b"COMMIT; SELECT 1; SELECT 1/0",
    b"BEGIN; ROLLBACK; BEGIN; SELECT 1/0",
    b"ABORT",
    b"BEGIN; SET LOCAL work_mem TO '5MB'; DROP DATABASE nowhere",
    b"END",
)


def parse(query: bytes, name: bytes = b"", types: tuple[int, ...] = ()) -> Instance:
    return say("Parse", statement=name, query=query, types=types)


def bind(*values: bytes | None, name: bytes = b"", portal: bytes = b"", results: tuple[int, ...] = ()) -> Instance:
    return say("Bind", portal=portal, statement=name, formats=(), values=values, result_formats=results)


def execute(limit: int = 0, portal: bytes = b"") -> Instance:
    return say("Execute", portal=portal, limit=limit)


def describe(kind: bytes, target: bytes = b"") -> Instance:
    return say("Describe", kind=kind, target=target)


def close(kind: bytes, target: bytes = b"") -> Instance:
    return say("Close", kind=kind, target=target)


def data(*rows: bytes) -> list[Instance]:
    return [say("CopyData", data=row) for row in rows]


def query(text: bytes) -> Instance:
    return say("Query", query=text)


SYNC, FLUSH, COPY_DONE = say("Sync"), say("Flush"), say("CopyDone")
GIVE_UP = say("CopyFail", reason=b"no more")


def exchange(wire: Wire, *requests: Instance, ready: int | None = None) -> list[Instance]:
    """Send requests at once and read up to the last ReadyForQuery due: one for each Query, FunctionCall and Sync."""
    due = sum(request.name in ("Query", "FunctionCall", "Sync") for request in requests) if ready is None else ready
    wire.send(*(encode(request) for request in requests))
    return [reply for _ in range(due) for reply in wire.until("ReadyForQuery")]


def simple_queries(wire: Wire) -> None:
    for text in SIMPLE:
        exchange(wire, query(text))
    exchange(wire, *map(query, SIMPLE))


def transactions(wire: Wire) -> None:
    for text in TRANSACTIONS:
        exchange(wire, query(text))
    exchange(wire, *map(query, TRANSACTIONS))
    for text in TRANSACTIONS:
        if b";" not in text:
            exchange(wire, parse(text), bind(), describe(b"P"), execute(), SYNC)
            exchange(wire, parse(text), bind(), execute(), SYNC)
    exchange(wire, query(b"ROLLBACK"))


def statements_in_extended_messages(wire: Wire) -> None:
    for text in SIMPLE:
        if b";" in text.rstrip(b" ;"):
            continue
        exchange(wire, parse(text), bind(), execute(), SYNC)
        exchange(wire, parse(text), describe(b"S"), bind(), execute(), SYNC)
        exchange(wire, parse(text), bind(results=(1,)), describe(b"P"), execute(), execute(), SYNC)
    exchange(wire, query(b"TRUNCATE pair, child"))


def portals_with_limits(wire: Wire) -> None:
    series = parse(b"SELECT generate_series(1, $1)", b"s", (23,))
    ten = bind(b"10", name=b"s", portal=b"p")
    exchange(wire, series, describe(b"S", b"s"), SYNC)
    exchange(wire, ten, *(execute(3, b"p") for _ in range(5)), SYNC)
    exchange(wire, ten, execute(10, b"p"), execute(10, b"p"), execute(0, b"p"), SYNC)
    exchange(wire, ten, describe(b"P", b"p"), execute(4, b"p"), FLUSH, execute(-1, b"p"), close(b"P", b"p"), SYNC)
    returning = parse(b"INSERT INTO pair SELECT generate_series(1, 6) RETURNING a")
    exchange(wire, returning, bind(), execute(2), execute(2), execute(3), SYNC)
    exchange(wire, parse(b"DELETE FROM pair RETURNING a, b"), bind(), describe(b"P"), execute(4), execute(4), SYNC)
    exchange(wire, parse(b"EXPLAIN SELECT * FROM pair NATURAL JOIN child"), bind(), execute(2), execute(), SYNC)
    exchange(wire, query(b"BEGIN; DECLARE c CURSOR FOR SELECT generate_series(1, 9), 0"))
    exchange(wire, describe(b"P", b"c"), execute(4, b"c"), SYNC, execute(4, b"c"), SYNC, close(b"P", b"c"), SYNC)
    exchange(wire, query(b"COMMIT"), close(b"S", b"s"), SYNC)


def statements_and_portals_by_name(wire: Wire) -> None:
    exchange(wire, parse(b"SELECT $1::int, $2::text", b"s"), describe(b"S", b"s"), SYNC)
    exchange(wire, bind(b"1", None, name=b"s"), execute(), bind(b"2", b"x", name=b"s", portal=b"q"), SYNC)
    exchange(wire, bind(b"1", name=b"s"), execute(), SYNC)
    exchange(wire, parse(b"SELECT 1", b"s"), describe(b"S", b"s"), execute(), SYNC)
    exchange(wire, close(b"S", b"s"), close(b"S", b"none"), close(b"P", b"none"), bind(name=b"s"), execute(), SYNC)
    exchange(wire, query(b"PREPARE s AS SELECT 1, 2, 3"))
    exchange(wire, bind(name=b"s"), describe(b"P"), execute(), SYNC)
    exchange(wire, query(b"DEALLOCATE s; PREPARE s AS SELECT 4"))
    exchange(wire, bind(name=b"s"), execute(), describe(b"S", b"s"), SYNC)
    exchange(wire, parse(b"DEALLOCATE ALL"), bind(), execute(), SYNC)
    exchange(wire, parse(b"SELECT 1, 2", b"s"), describe(b"S", b"s"), close(b"S", b"s"), parse(b"SELECT 1", b"s"), SYNC)
    exchange(wire, bind(name=b"s"), execute(), describe(b"P"), execute(), SYNC, close(b"S", b"s"), SYNC)
    exchange(wire, parse(b"SELECT 1, 2"), SYNC, query(b"SELECT 1"), bind(), execute(), SYNC)
    exchange(wire, parse(b"CREATE TEMPORARY TABLE made_once AS SELECT 1"), bind(), execute(), SYNC)
    exchange(wire, parse(b"SELECT $1", types=(25, 25)), bind(b"x", b"y"), execute(), SYNC)


def errors_at_any_place(wire: Wire) -> None:
    good = [parse(b"SELECT 1"), bind(), describe(b"P"), execute(), close(b"S")]
    bad = [
        parse(b"SELEC"),
        bind(name=b"nowhere"),
        describe(b"S", b"nowhere"),
        describe(b"P", b"nowhere"),
        execute(portal=b"nowhere"),
        bind(b"1", b"2"),
    ]
    for mistake in bad:
        for place in range(len(good) + 1):
            exchange(wire, *good[:place], mistake, *good[place:], SYNC, *good, SYNC)
    exchange(wire, *good, parse(b"INSERT INTO child VALUES (99)"), bind(), execute(), SYNC, *good, SYNC)
    failing = [parse(b"SELECT 10 / (4 - generate_series(1, 5))"), bind(), describe(b"P"), execute(2), execute(2)]
    exchange(wire, *failing, *good, SYNC)
    exchange(wire, parse(b"SELEC"), query(b"SELECT 1"), say("CopyDone"), FLUSH, SYNC, query(b"SELECT 1"), ready=2)
    exchange(wire, parse(b"SELECT 1"), query(b"SELECT 2"), bind(), execute(), SYNC)
    exchange(wire, FLUSH, *data(b"void"), COPY_DONE, GIVE_UP, SYNC, SYNC, FLUSH, query(b""))
    for begin in (b"BEGIN", b"COMMIT", b"ROLLBACK"):
        exchange(wire, parse(begin), bind(), execute(), parse(b"SELECT 1/0"), bind(), execute(), SYNC)
    exchange(wire, query(b"ROLLBACK"))


def pipelines(wire: Wire) -> None:
    one = [parse(b"SELECT $1::int, 'x'"), bind(b"1"), describe(b"P"), execute(), SYNC]
    exchange(wire, *(one * 300))
    exchange(wire, parse(b"SELECT generate_series(1, $1::int)", b"s"), SYNC)
    exchange(wire, *[bind(b"3", name=b"s"), execute()] * 200, SYNC, close(b"S", b"s"), SYNC)
    exchange(wire, *([*one[:-1], parse(b"SELEC"), *one] * 40))
    exchange(wire, *[query(b"SELECT 1; SELECT 2, 3")] * 200)
    exchange(wire, *[parse(b"BEGIN"), bind(), execute(), *one, query(b"COMMIT")] * 20)


def copies_from_the_frontend(wire: Wire) -> None:
    copy = query(b"COPY pair FROM STDIN")
    rows = data(b"1\tx\n2", b"\ty\n", b"3\tz\n")
    clean = query(b"TRUNCATE pair, child")
    exchange(wire, copy, *rows, COPY_DONE, clean)
    exchange(wire, copy, *rows, GIVE_UP, clean)
    exchange(wire, copy, *data(b"not a number\n"), COPY_DONE, clean)
    exchange(wire, copy, *rows, *data(b"1\ttwice\n"), COPY_DONE, clean)
    exchange(wire, query(b"COPY nowhere FROM STDIN"), *rows, COPY_DONE, clean)
    exchange(wire, query(b"COPY pair FROM STDIN; COPY ruled FROM STDIN; SELECT 1"), *rows, COPY_DONE, COPY_DONE, clean)
    exchange(wire, query(b"COPY pair FROM STDIN; SELECT 1"), *rows, GIVE_UP, *data(b"void"), COPY_DONE, clean)
    wire.send(encode(copy))
    wire.until("CopyInResponse")
    exchange(wire, *rows, FLUSH, SYNC, SYNC, COPY_DONE, clean, ready=2)
    extended = [parse(b"COPY pair FROM STDIN"), bind(), describe(b"P"), execute()]
    exchange(wire, *extended, *rows, COPY_DONE, SYNC, clean)
    exchange(wire, *extended, *rows, GIVE_UP, execute(), SYNC, clean)
    exchange(wire, *extended, *data(b"not a number\n"), COPY_DONE, execute(), SYNC, clean)
    exchange(wire, *extended, SYNC, FLUSH, *rows, COPY_DONE, SYNC, clean, ready=2)
    exchange(wire, query(b"BEGIN"), copy, *data(b"not a number\n"), COPY_DONE, query(b"ROLLBACK"))


def copies_that_fail_with_syncs_behind(wire: Wire) -> None:
    """How many of the Syncs are answered depends on when the server notices: an end that is sure is asked for."""
    bad = data(b"not a number\n")
    for begin in ([query(b"COPY pair FROM STDIN")], [parse(b"COPY pair FROM STDIN"), bind(), execute()]):
        for requests in (
            [*bad, SYNC, SYNC, COPY_DONE, SYNC],
            [SYNC, *bad, SYNC, COPY_DONE],
            [SYNC, SYNC, *bad, GIVE_UP],
        ):
            wire.send(*(encode(request) for request in [*begin, *requests, SYNC, query(b"SELECT 'the end'")]))
            while not any(reply.name == "CommandComplete" for reply in wire.until("ReadyForQuery")):
                pass


def copies_to_the_frontend(wire: Wire) -> None:
    for options in (b"", b" (FORMAT csv, HEADER)", b" (FORMAT binary)", b" (FORMAT csv)"):
        for rows in (b"SELECT generate_series(1, 5), 'x'", b"SELECT 1 WHERE false", b"SELECT"):
            text = b"COPY (" + rows + b") TO STDOUT" + options
            exchange(wire, query(text), query(text + b"; SELECT 1"))
            exchange(wire, parse(text), bind(), describe(b"P"), execute(), SYNC, parse(text), bind(), execute(3), SYNC)
    exchange(wire, query(b"COPY (SELECT 10 / (4 - generate_series(1, 5))) TO STDOUT"), query(b"SELECT 1"))
    exchange(wire, parse(b"COPY (SELECT 1/0) TO STDOUT"), bind(), execute(), execute(), SYNC)


def function_calls(wire: Wire) -> None:
    def call(function: int, *arguments: bytes | None) -> Instance:
        return say("FunctionCall", function=function, formats=(), arguments=arguments, result_format=0)

    plus = 177
    exchange(wire, call(plus, b"1", b"2"), call(plus, b"1", None), call(plus, b"x", b"2"), call(0), query(b"SELECT 1"))
    exchange(wire, query(b"BEGIN"), call(plus, b"x", b"2"), call(plus, b"1", b"2"), query(b"ROLLBACK"))
    exchange(wire, parse(b"SELECT 1"), call(plus, b"1", b"2"), bind(), execute(), SYNC)


def messages_nobody_asked_for(wire: Wire) -> None:
    exchange(wire, query(b"LISTEN here"), query(b"NOTIFY here, 'one'"), query(b"SELECT 1"))
    with Wire(wire.address) as other:
        other.log_in(password=PASSWORD)
        other.ask("NOTIFY here, 'two'")
    wire.until("NotificationResponse")
    exchange(wire, query(b"SET application_name TO 'other'; SET client_encoding TO 'latin1'; SELECT 1"))
    exchange(wire, parse(b"NOTIFY here"), bind(), execute(), SYNC, query(b"RESET ALL"))
    noisy = b"DO $$ begin for i in 1..20 loop raise notice 'number %', i; end loop; end $$"
    exchange(wire, query(noisy), parse(noisy), bind(), execute(), SYNC, query(b"UNLISTEN *"))


def cancelled_requests(wire: Wire) -> None:
    asleep = query(b"SELECT pg_sleep(60)")
    for requests in ([asleep], [parse(b"SELECT pg_sleep(60)"), bind(), execute(), SYNC], [query(b"BEGIN"), asleep]):
        wire.send(*(encode(request) for request in requests))
        cancelling = threading.Event()

        def cancel(stop: threading.Event = cancelling) -> None:
            while not stop.wait(0.05):
                wire.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        while not any(reply.name == "ErrorResponse" for reply in wire.until("ReadyForQuery")):
            pass
        cancelling.set()
        thread.join()
        # A cancel request may hit what follows; it changes nothing.
        exchange(wire, query(b""))
    exchange(wire, query(b"ROLLBACK"))


PASSWORD = "conversation"  # of the superuser postgres of the servers these run on

SCRIPTS: tuple[Script, ...] = (
    simple_queries,
    transactions,
    statements_in_extended_messages,
    portals_with_limits,
    statements_and_portals_by_name,
    errors_at_any_place,
    pipelines,
    copies_from_the_frontend,
    copies_that_fail_with_syncs_behind,
    copies_to_the_frontend,
    function_calls,
    messages_nobody_asked_for,
    cancelled_requests,
)
