"""Evidence: what every kind of statement leaves, the traps of a text that says something else than it seems to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.pooling import evidence
from pgpooler.pooling.evidence import (
    ADVISORY_LOCK,
    CLEANING,
    FOR_THE_TRANSACTION,
    HELD_CURSOR,
    LISTENING,
    LOADED,
    LONGEST_READ,
    NOTHING,
    PINNING,
    PREPARED,
    READS_DATA,
    RELEASING,
    RESTORING,
    SETTINGS,
    STATEMENTS,
    TEMPORARY,
    UNREAD,
    Texts,
    leavings,
    of_tag,
    of_text,
    reading,
)
from pgpooler.pooling.evidence.harmless_functions import HARMLESS, SYNTAX
from pgpooler.protocol.sql import DOUBT, tokens

HARMLESS_TEXTS = r"""
SELECT 1
select 1;
;; SELECT 1 ; ; SELECT 2 ;
(SELECT 1) UNION (SELECT 2)
TABLE t
VALUES (1, 'a'), (2, 'b')
BEGIN; INSERT INTO t VALUES (1); COMMIT
START TRANSACTION ISOLATION LEVEL SERIALIZABLE
SAVEPOINT a; ROLLBACK TO SAVEPOINT a; RELEASE a
PREPARE TRANSACTION 'x'
COMMIT PREPARED 'x'
ROLLBACK PREPARED 'x'
SET LOCAL statement_timeout = '5s'
SET LOCAL search_path TO a, b
set local time zone 'UTC'
SET TRANSACTION READ ONLY
SET CONSTRAINTS ALL DEFERRED
SET CONSTRAINTS "a" IMMEDIATE
SELECT count(*), max(a), lower(b) FROM t WHERE c IN (1, 2) AND (d = 1 OR NOT (e = 2)) GROUP BY (b) ORDER BY (b)
SELECT pg_catalog.lower(a), "pg_catalog".lower(a), "pg_catalog" . "upper" ( a ) FROM t
SELECT "lower"(a) FROM t
SELECT a::numeric(10, 2), b::varchar(20), CAST(c AS timestamp(3)), d::bit varying(5), e::geometry(Point, 4326) FROM t
SELECT timestamp(3) '2026-01-01', interval(3) '1 day', a AT TIME ZONE (b) FROM t
SELECT * FROM (VALUES (1, 'a')) AS v(a, b), (VALUES (1)) w(c), unnest(ARRAY[1]) WITH ORDINALITY AS u(d, e)
SELECT row_number() OVER (PARTITION BY (a) ORDER BY b), count(*) FILTER (WHERE a > 1) OVER w FROM t WINDOW w AS ()
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t
SELECT a, sum(b) FROM t GROUP BY ROLLUP (a)
SELECT a, sum(b) FROM t GROUP BY GROUPING SETS ((a), ())
SELECT DISTINCT ON (a) a, lower(b) FROM t
SELECT DISTINCT ON (a) row_number() OVER (ORDER BY a) FROM t
SELECT EXISTS (SELECT 1), ARRAY(SELECT 1), ROW(1, 2), COALESCE(1, 2), NULLIF(1, 2), GREATEST(1, 2)
SELECT a FROM t JOIN (SELECT 1 AS b) AS u USING (b) LEFT JOIN (t AS x CROSS JOIN t AS y) ON (true)
SELECT 1 FROM a FULL JOIN (b CROSS JOIN c) ON true INNER JOIN (d CROSS JOIN e) ON true
SELECT 1 FROM a RIGHT JOIN (f CROSS JOIN g) ON true LEFT OUTER JOIN (b CROSS JOIN c) ON true
SELECT 1 FROM a NATURAL JOIN (d CROSS JOIN e) CROSS JOIN (f CROSS JOIN g)
SELECT a::char varying(1), b::character varying(2), c::nchar varying(3), d::timestamp with time zone FROM t
SELECT a::timestamp(3) AT TIME ZONE (b) FROM t TABLESAMPLE system (10)
SELECT extract(year FROM now()), substring('a' FROM 1 FOR 1), position('a' IN 'b'), trim(BOTH ' ' FROM 'a')
SELECT a FROM t TABLESAMPLE bernoulli (10) REPEATABLE (1)
SELECT a INTO t2 FROM t
SELECT 'set_config(1)' /* set_config(1) */ -- set_config(1)
SELECT $$ set_config(1); LISTEN a $$, $a$ nextval('b') $a$
SELECT "set_config", "LISTEN", "SET" FROM "DO"
SELECT 'a;LISTEN b', "c;LISTEN d"
SELECT '\d+', 'C:\x', E'it\'s; LISTEN a'
SELECT nextval FROM nextval
SELECT temp, temporary FROM temp
SELECT set_config('app.user', $1, true)
SELECT pg_catalog.set_config('app.user', 'a' || 'b', true), set_config('search_path', 'a', true)
SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(1, 2), pg_notify('a', 'b')
SELECT current_setting('a', true), txid_current(), pg_backend_pid(), gen_random_uuid(), pg_sleep(0)
WITH a AS (INSERT INTO t (x) VALUES (1) RETURNING x), b(y) AS MATERIALIZED (SELECT 1) SELECT * FROM a, b
WITH a AS NOT MATERIALIZED (SELECT 2), b(x, y) AS (TABLE t) TABLE a
WITH RECURSIVE a(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM a WHERE n < 9) SELECT sum(n) FROM a
SELECT * FROM (WITH a(x) AS (SELECT 1) SELECT x FROM a) AS b
INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT (a) DO UPDATE SET (a, b) = (1, 2) RETURNING *
INSERT INTO temp (a) VALUES (1)
INSERT INTO s.t AS x (a) SELECT 1
INSERT INTO t DEFAULT VALUES
UPDATE t SET a = 1, (b, c) = (SELECT 1, 2) FROM u WHERE t.id = u.id
UPDATE t SET (a, b) = (1, 2)
DELETE FROM t USING u WHERE t.id = u.id
MERGE INTO t USING u ON (t.id = u.id) WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN DO NOTHING
COPY t (a, b) FROM STDIN
COPY t FROM STDIN (FORMAT csv)
COPY t TO STDOUT WITH (FORMAT binary)
COPY (SELECT lower(a) FROM t) TO STDOUT
COPY (SELECT 1) TO STDOUT (FORMAT csv)
DECLARE c CURSOR FOR SELECT 1
DECLARE c SCROLL CURSOR WITHOUT HOLD FOR SELECT 1
DECLARE c CURSOR FOR WITH hold AS (SELECT 1) SELECT * FROM hold
FETCH 10 FROM c
MOVE c
LOCK TABLE t IN SHARE MODE
EXPLAIN (ANALYZE, BUFFERS) SELECT lower(a) FROM t
EXPLAIN SELECT 1
SHOW search_path
NOTIFY a, 'b'
VACUUM (ANALYZE) t (a)
ANALYZE t (a, b)
TRUNCATE t RESTART IDENTITY
CREATE TABLE t (id int PRIMARY KEY DEFAULT nextval('s'), a varchar(10) REFERENCES u (a), UNIQUE (a), CHECK (f(a)))
CREATE TABLE t (a geometry(Point) GENERATED ALWAYS AS (f(b)) STORED, FOREIGN KEY (a) REFERENCES u (a, b))
CREATE TABLE IF NOT EXISTS s.t (a int) WITH (fillfactor = 70)
CREATE TABLE t AS SELECT lower(a) FROM u
CREATE TABLE p (a int) PARTITION BY RANGE (a)
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (2)
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON s.t USING btree (a, lower(b)) INCLUDE (c) WHERE a > 1
CREATE INDEX ON t (a)
CREATE VIEW v AS SELECT f(nextval('s'))
CREATE MATERIALIZED VIEW v AS SELECT lower(a) FROM t
CREATE FUNCTION f(a int DEFAULT g()) RETURNS int LANGUAGE sql AS $$ SELECT set_config('a', 'b', false) $$
CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(1)
CREATE ROLE r; ALTER ROLE r SET search_path = a; GRANT EXECUTE ON FUNCTION f(int) TO r
GRANT SELECT (a), INSERT (a), UPDATE (a), REFERENCES (a) ON t TO r; GRANT EXECUTE ON FUNCTION f(int), g(int) TO r
REVOKE UPDATE (a, b) ON t FROM r; REVOKE EXECUTE ON FUNCTION f(int), g(int) FROM r
COMMENT ON FUNCTION f(int) IS 'x'; REVOKE ALL ON FUNCTION f(int) FROM r
CREATE DATABASE d TEMPLATE x; CREATE SCHEMA s; CREATE SEQUENCE q
CREATE TYPE e AS ENUM ('a'); CREATE DOMAIN n AS int CHECK (f(VALUE))
ALTER TABLE t ADD COLUMN a numeric(10, 2), ADD CONSTRAINT x FOREIGN KEY (a) REFERENCES u (a), ALTER b TYPE varchar(3)
ALTER FUNCTION f(int) OWNER TO r
ALTER TABLE t ADD PRIMARY KEY (a), ADD FOREIGN KEY (a) REFERENCES u (a)
ALTER INDEX i SET (fillfactor = 70); ALTER TABLE t SET (fillfactor = 70)
REINDEX TABLE t; CLUSTER t; CHECKPOINT; REFRESH MATERIALIZED VIEW v; REASSIGN OWNED BY a TO b
""".strip().split("\n")

LEAVES: list[tuple[str, int]] = [
    ("SET a = 1", SETTINGS),
    ("/* x */ set -- y\n a to 1", SETTINGS),
    ("SET SESSION a = 1", SETTINGS),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", SETTINGS),
    ("SET ROLE a", SETTINGS),
    ("SET SESSION AUTHORIZATION a", SETTINGS),
    ("SET TIME ZONE LOCAL", SETTINGS),
    ("SET local.a = 1", SETTINGS),
    ("SET transaction.a = 1", SETTINGS),
    ("SET constraints.a = 1", SETTINGS),
    ("SET LOCAL TO 1", SETTINGS),
    ('SET "local" TO 1', SETTINGS),
    ("SET search_path TO a, pg_temp", TEMPORARY | CLEANING | SETTINGS),
    ("SET LOCAL search_path = 'pg_temp'", TEMPORARY | CLEANING | FOR_THE_TRANSACTION),
    ("SET LOCAL search_path = 'pg_'\n'temp'", CLEANING | FOR_THE_TRANSACTION),
    ("SET LOCAL search_path = E'pg\\x5ftemp'", CLEANING | FOR_THE_TRANSACTION),
    ("SET LOCAL search_path = U&'pg!005ftemp' UESCAPE '!'", CLEANING | FOR_THE_TRANSACTION),
    ("RESET ALL", SETTINGS | RESTORING),
    ("DISCARD ALL", RELEASING | CLEANING | SETTINGS | RESTORING | STATEMENTS),
    ("DISCARD TEMP", RELEASING | CLEANING),
    ("DEALLOCATE a", RELEASING | CLEANING | STATEMENTS),
    ("UNLISTEN *", RELEASING | CLEANING),
    ("CLOSE a", RELEASING),
    ("DROP TABLE a", RELEASING),
    ("DROP TABLE pg_temp.a", RELEASING),
    ("DROP FUNCTION f(int), g(int)", RELEASING),
    ("LISTEN a", LISTENING | CLEANING),
    ("SELECT 1; LISTEN a; SELECT 2", LISTENING | CLEANING),
    ("PREPARE a AS SELECT 1", PREPARED | CLEANING | STATEMENTS),
    ("PREPARE a (int) AS SELECT pg_advisory_lock($1)", PREPARED | ADVISORY_LOCK | CLEANING | STATEMENTS),
    ("PREPARE transaction AS SELECT 1", PREPARED | CLEANING | STATEMENTS),
    ("PREPARE \"transaction\" AS SELECT 'a'", PREPARED | CLEANING | STATEMENTS),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", HELD_CURSOR | CLEANING),
    ("DECLARE c NO SCROLL CURSOR WITH /* */ HOLD FOR SELECT f(1)", HELD_CURSOR | CLEANING),
    ("DECLARE c CURSOR FOR SELECT f(1)", CLEANING),
    ("LOAD 'auto_explain'", LOADED | CLEANING),
    ("DO $$ BEGIN END $$", CLEANING),
    ("CALL p()", CLEANING),
    ("EXECUTE a", CLEANING | STATEMENTS),
    ("EXPLAIN ANALYZE EXECUTE a", CLEANING | STATEMENTS),
    ("CREATE TABLE t AS EXECUTE a", CLEANING | STATEMENTS),
    ("IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c", CLEANING),
    ("CREATE EXTENSION a", CLEANING),
    ("CREATE OR REPLACE TRUSTED PROCEDURAL LANGUAGE a", CLEANING),
    ("whatever", CLEANING),
    ('"select" 1', CLEANING),
    ("CREATE TEMP TABLE a (b int)", TEMPORARY | CLEANING),
    ("create/**/temporary--\ntable a (b int)", TEMPORARY | CLEANING),
    ("CREATE LOCAL TEMP TABLE a (b int)", TEMPORARY | CLEANING),
    ("CREATE GLOBAL TEMPORARY TABLE a AS SELECT 1", TEMPORARY | CLEANING),
    ("CREATE TEMP TABLE a (b int) ON COMMIT DELETE ROWS", TEMPORARY | CLEANING),
    ("CREATE TEMP TABLE a (b int) ON COMMIT DROP", CLEANING),
    ("CREATE TEMP TABLE a ON COMMIT DROP AS SELECT 1", CLEANING),
    ("CREATE TEMP TABLE a (b int); SELECT 'ON COMMIT DROP'", TEMPORARY | CLEANING),
    ("CREATE TEMP VIEW a AS SELECT 1", TEMPORARY | CLEANING),
    ("CREATE OR REPLACE TEMP RECURSIVE VIEW a (n) AS SELECT 1", TEMPORARY | CLEANING),
    ("CREATE TEMP SEQUENCE a", TEMPORARY | CLEANING),
    ("CREATE TABLE pg_temp.a (b int)", TEMPORARY | CLEANING),
    ('CREATE TABLE "pg_temp" . a (b int)', TEMPORARY | CLEANING),
    ("CREATE TABLE pg_temp_3.a (b int)", TEMPORARY | CLEANING),
    ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", TEMPORARY | CLEANING),
    ("SELECT 1 INTO TEMP a", TEMPORARY | CLEANING),
    ("SELECT * INTO LOCAL TEMPORARY TABLE a FROM b", TEMPORARY | CLEANING),
    ("SELECT * INTO pg_temp.a FROM b", TEMPORARY | CLEANING),
    ("WITH a AS (SELECT 1) SELECT * INTO TEMP b FROM a", TEMPORARY | CLEANING),
    ("EXPLAIN ANALYZE CREATE TEMP TABLE a AS SELECT 1", TEMPORARY | CLEANING),
    ("SELECT pg_advisory_lock(1)", ADVISORY_LOCK | CLEANING),
    ("SELECT pg_try_advisory_lock_shared(1, 2)", ADVISORY_LOCK | CLEANING),
    ('SELECT "pg_advisory_lock" (1)', ADVISORY_LOCK | CLEANING),
    ("SELECT pg_catalog.PG_Advisory_Lock/* */(1)", ADVISORY_LOCK | CLEANING),
    ("EXPLAIN ANALYZE SELECT pg_advisory_lock(1)", ADVISORY_LOCK | CLEANING),
    ("COPY (SELECT pg_advisory_lock(1)) TO STDOUT", ADVISORY_LOCK | CLEANING),
    ("INSERT INTO t SELECT pg_advisory_lock(1)", ADVISORY_LOCK | CLEANING),
    ("SELECT pg_advisory_unlock(1)", RELEASING | CLEANING),
    ("SELECT pg_advisory_unlock_all()", RELEASING | CLEANING),
    ("SELECT pg_backup_start('a')", LOADED | CLEANING),
    ("SELECT set_config('a.b', 'c', false)", SETTINGS),
    ("SELECT set_config('a.b', 'c', $1)", SETTINGS),
    ("SELECT set_config('a.b', 'c', is_local => true)", SETTINGS),
    ("SELECT set_config('a.b', 'c', true and false)", SETTINGS),
    ("SELECT set_config('a.b', f(1, true), true)", CLEANING | FOR_THE_TRANSACTION),
    ("SELECT set_config($1, $2, true)", CLEANING | FOR_THE_TRANSACTION),
    ("SELECT set_config('Search_Path', $1, true)", CLEANING | FOR_THE_TRANSACTION),
    ("SELECT set_config('search_path', 'pg_temp', true)", TEMPORARY | CLEANING | FOR_THE_TRANSACTION),
    ("SELECT set_config('search_path', 'pg_' || 'temp', true)", CLEANING | FOR_THE_TRANSACTION),
    ("SELECT set_config('a', 'b'", SETTINGS | CLEANING),
    (f"SELECT set_config('a', 'b' {' + 1' * 40}, true)", SETTINGS | CLEANING),
    ("SELECT stdin(1)", CLEANING),
    ("COPY (SELECT stdout(1)) TO STDOUT", CLEANING),
    ("SELECT\"set_config\"('a.b','c',false)", SETTINGS),
    ("SELECT nextval('a')", CLEANING),
    ("SELECT setval('a', 1)", CLEANING),
    ("SELECT lastval()", CLEANING),
    ("SELECT setseed(0.5)", CLEANING),
    ("SELECT query_to_xml('select 1', true, true, '')", CLEANING),
    ("SELECT f(1)", CLEANING),
    ("SELECT s.lower('a')", CLEANING),
    ("SELECT a.pg_catalog.lower('a')", CLEANING),
    ('SELECT "Lower"(1)', CLEANING),
    ("SELECT * FROM f(1)", CLEANING),
    ("SELECT * FROM t JOIN u ON f(1)", CLEANING),
    ("SELECT * FROM t, LATERAL f(1) AS x(a)", CLEANING),
    ("SELECT * FROM ROWS FROM (f(1), lower('a')) AS x", CLEANING),
    ("SELECT * FROM a, f(1) AS (b int), g(2)", CLEANING),
    ("SELECT DISTINCT ON (a) f(b) FROM t", CLEANING),
    ("SELECT 1 OPERATOR(pg_catalog.+) f(1)", CLEANING),
    ("SELECT a FROM t ORDER BY cube(a)", CLEANING),
    ("SELECT join(a), by(b), set(c), key(d), over(e), filter(f) FROM t", CLEANING),
    ("SELECT * FROM a JOIN b ON conflict(a)", CLEANING),
    ("WITH a AS (SELECT 1) (SELECT 1) ORDER BY f(1)", CLEANING),
    ("WITH a AS (SELECT 1), b AS (SELECT f(1)) SELECT 1", CLEANING),
    ("WITH a AS (SELECT 1) SELECT 1, f(1)", CLEANING),
    ("WITH a AS (UPDATE t SET b = f(1) RETURNING 1) SELECT 1", CLEANING),
    ("WITH a AS (SELECT 1) VALUES (1) ORDER BY f(1)", CLEANING),
    ("WITH a AS (SELECT 1) TABLE a ORDER BY f(1)", CLEANING),
    ("WITH a AS (SELECT 1) UPDATE t SET b = f(1)", CLEANING),
    ("WITH a AS (SELECT 1) DELETE FROM t WHERE f(1)", CLEANING),
    ("WITH a AS (SELECT 1) MERGE INTO t USING u ON f(1) WHEN MATCHED THEN DELETE", CLEANING),
    ("VALUES (f(1))", CLEANING),
    ("INSERT INTO t (a) VALUES (f(1))", CLEANING),
    ("UPDATE t SET a = 1 WHERE f(a)", CLEANING),
    ("DELETE FROM t USING f(1)", CLEANING),
    ("DELETE FROM t WHERE a = 1 RETURNING f(a)", CLEANING),
    ("UPDATE pg_settings SET setting = 'x'", SETTINGS),
    ("UPDATE pg_catalog.\"pg_settings\" SET setting = 'x'", SETTINGS),
    ("CREATE TABLE t AS SELECT f(1)", CLEANING),
    ("CREATE TABLE t AS SELECT 1 FROM a JOIN b ON f(1)", CLEANING),
    ("CREATE TABLE p1 PARTITION OF p FOR VALUES IN (f(1))", CLEANING),
    ("CREATE MATERIALIZED VIEW v AS SELECT * FROM a JOIN b ON f(1)", CLEANING),
    ("CREATE INDEX i ON t (f(a))", CLEANING),
    ("CREATE INDEX i ON t (a) WHERE f(a)", CLEANING),
    ("ALTER TABLE t ALTER a TYPE int USING f(a)", CLEANING),
    ("ALTER TABLE t ADD COLUMN a int DEFAULT nextval('s')", CLEANING),
    ("ALTER TABLE t ADD COLUMN a bigserial", CLEANING),
    ("ALTER TABLE t ADD a int GENERATED BY DEFAULT AS IDENTITY", CLEANING),
    ("ALTER EXTENSION a UPDATE", CLEANING),
    ('SELECT U&"\\0066" (1)', UNREAD | CLEANING),
    ("SELECT U&\"d!0066\" UESCAPE '!' (1)", UNREAD | CLEANING),
    ("SELECT '\\'", UNREAD | CLEANING),
    ("SELECT 'a", UNREAD | CLEANING),
    ("SELECT 1 /* a", UNREAD | CLEANING),
    ("SELECT $$a", UNREAD | CLEANING),
    ("LISTEN a; SELECT 'a", LISTENING | UNREAD | CLEANING),
    ("SELECT 1 \0", UNREAD | CLEANING),
    ("(", UNREAD | CLEANING),
]


@pytest.mark.parametrize("text", HARMLESS_TEXTS)
def test_a_harmless_text_leaves_nothing(text: str) -> None:
    assert of_text(text.encode()) & ~(FOR_THE_TRANSACTION | READS_DATA) == NOTHING


@pytest.mark.parametrize("text", HARMLESS_TEXTS)
def test_a_harmless_text_leaves_nothing_in_capitals_and_with_comments_between_its_words(text: str) -> None:
    raw = text.encode()
    parts = [raw[token.start : token.stop] for token in tokens(raw)]
    found = of_text(b" /* LISTEN ( */\n".join(parts) + b" -- set_config(")
    found |= of_text(b"\n".join(part.upper() if part[:1] not in b"\"'$E" else part for part in parts))
    assert found & ~(FOR_THE_TRANSACTION | READS_DATA) == NOTHING


@pytest.mark.parametrize(("text", "expected"), LEAVES)
def test_what_a_text_leaves(text: str, expected: int) -> None:
    assert of_text(text.encode()) == expected


@pytest.mark.parametrize(("text", "expected"), LEAVES)
def test_what_a_text_leaves_is_found_behind_other_statements(text: str, expected: int) -> None:
    assert of_text(b"SELECT 1; ;" + text.encode()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("copy t FROM/**/stdin", READS_DATA),
        ("COPY s.t (a, b) FROM STDIN WITH (FORMAT csv) WHERE a > 1", READS_DATA),
        ("COPY t FROM STDOUT", READS_DATA),  # the grammar does not mind
        ("SELECT 1; COPY t FROM STDIN; SELECT 2", READS_DATA),
        ("COPY t TO STDOUT", NOTHING),
        ("COPY t FROM '/a/file'", NOTHING),
        ("COPY (SELECT 1 FROM stdin) TO STDOUT", NOTHING),
        ("SELECT 1 FROM stdin", NOTHING),
        ('COPY t FROM "stdin"', NOTHING),
    ],
)
def test_a_copy_from_the_client_is_known_by_its_text(text: str, expected: int) -> None:
    assert of_text(text.encode()) == expected


def test_an_empty_text_leaves_nothing() -> None:
    assert of_text(b"") == of_text(b" ; -- x\n ;") == NOTHING


def test_names_and_constants_in_any_encoding_are_read() -> None:
    assert of_text("SELECT имя, 'é' FROM \"таблица\" -- é".encode()) == NOTHING
    assert of_text("SELECT ИМЯ(1)".encode()) == CLEANING
    assert of_text("SELECT 'ソx', a FROM t".encode("shift_jis")) == NOTHING
    assert of_text("SELECT 'ソ', a FROM t".encode("shift_jis")) & UNREAD
    assert of_text("SELECT ソ(1)".encode("shift_jis")) & UNREAD


def test_every_pin_has_a_name() -> None:
    assert evidence.describe(PINNING | CLEANING) == (
        "temporary objects and LISTEN and session advisory locks and cursors WITH HOLD and prepared statements"
    )
    assert evidence.describe(CLEANING) == ""
    assert sum(evidence.NAMES) == PINNING


# -- tags --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        *((tag, NOTHING) for tag in ("SELECT 1", "INSERT 0 1", "UPDATE 3", "DELETE 0", "MERGE 1", "BEGIN", "COMMIT")),
        *((tag, NOTHING) for tag in ("ROLLBACK", "START TRANSACTION", "SAVEPOINT", "RELEASE", "FETCH 1", "MOVE 1")),
        *(
            (tag, NOTHING)
            for tag in ("COPY 5", "SHOW", "EXPLAIN", "LOCK TABLE", "CREATE TABLE", "ALTER TABLE", "VACUUM")
        ),
        *((tag, NOTHING) for tag in ("PREPARE TRANSACTION", "COMMIT PREPARED", "SET CONSTRAINTS", "CREATE TABLE AS")),
        ("SET", SETTINGS),
        ("RESET", SETTINGS | RESTORING),
        ("PREPARE", PREPARED | CLEANING),
        ("DEALLOCATE", RELEASING | CLEANING),
        ("DEALLOCATE ALL", RELEASING | CLEANING),
        ("DISCARD ALL", RELEASING | CLEANING | SETTINGS | RESTORING),
        ("DISCARD TEMP", RELEASING | CLEANING),
        ("LISTEN", LISTENING | CLEANING),
        ("UNLISTEN", RELEASING | CLEANING),
        ("DECLARE CURSOR", CLEANING),
        ("CLOSE CURSOR", RELEASING),
        ("CLOSE CURSOR ALL", RELEASING),
        ("DROP TABLE", RELEASING),
        ("DROP OWNED", RELEASING),
        ("LOAD", LOADED | CLEANING),
        ("DO", CLEANING),
        ("CALL", CLEANING),
        ("CREATE EXTENSION", CLEANING),
        ("IMPORT FOREIGN SCHEMA", CLEANING),
        ("WHATEVER COMES NEXT", CLEANING),
        ("", CLEANING),
    ],
)
def test_what_a_tag_says(tag: str, expected: int) -> None:
    assert of_tag(tag.encode()) == expected


def test_no_tag_that_leaves_something_begins_as_a_harmless_one() -> None:
    assert not {tag[:4] for tag in leavings.TAGS} & leavings.HARMLESS_TAGS
    assert all(len(head) == 4 for head in leavings.HARMLESS_TAGS)


# -- tables ------------------------------------------------------------------------------------------------------------


def test_no_function_is_in_two_tables() -> None:
    assert not HARMLESS & leavings.FUNCTIONS.keys()
    assert not HARMLESS & {b"set_config", b"setseed", b"nextval", b"setval", b"currval", b"lastval", b"ts_stat"}


def test_no_function_that_runs_sql_given_as_text_is_harmless() -> None:
    assert not [name for name in HARMLESS if b"_to_xml" in name or name.startswith((b"ts_stat", b"ts_rewrite"))]


def test_the_quick_proof_knows_only_harmless_names_and_commands() -> None:
    names = evidence.PLAIN_BEFORE_PARENTHESIS.split()
    assert not set(names) - HARMLESS - SYNTAX
    for command in evidence.PLAIN_COMMANDS.split():
        first = command.split(rb"\s")[0]
        assert leavings.COMMANDS[first] == NOTHING
        assert first not in reading.RULES


# -- properties --------------------------------------------------------------------------------------------------------

SOURCES = [*HARMLESS_TEXTS, *(text for text, _ in LEAVES)]
FRAGMENTS = sorted(
    {
        source.encode()[token.start : token.stop]
        for source in SOURCES
        for token in tokens(source.encode())
        if token.kind != DOUBT
    }
    | {
        b"'",
        b'"',
        b"--",
        b"/*",
        b"*/",
        b"\\",
        b"$$",
        b"U&",
        b"E",
        b"\xff",
        b"pg_temp.",
        b"set_config(",
        b"temp",
        b"into",
    }
)
texts = st.lists(
    st.tuples(st.sampled_from(FRAGMENTS), st.sampled_from([b" ", b" ", b"", b"\n", b".", b" (", b") ", b", "])),
    max_size=25,
).map(lambda parts: b"".join(fragment + gap for fragment, gap in parts))
plain_parts = st.sampled_from(
    rb"""
    a t.a "a" 'x' E'x' u&'x' u&"x" 1 1.5 1e5 1. .5 e5 $1 , = <> :: . ( ) [ ] and in( values( count( max ( lower( f(
    f ( "f"( s.f( s.count( pg_temp.a pg_settings "pg_temp".a "pg_settings" temp temporary execute into numeric( from
    where - -- / /* & | ; as on using( join on( not $$ $a$ ' " \ \xff
    """.split()
)
plain_texts = st.tuples(
    st.sampled_from(
        [b"SELECT ", b"update ", b"INSERT INTO t (", b"insert into s.t ", b"with ", b"BEGIN", b"delete from "]
    ),
    st.lists(st.tuples(plain_parts, st.sampled_from([b" ", b"", b"\n"])), max_size=12),
).map(lambda parts: parts[0] + b"".join(part + gap for part, gap in parts[1]))


@given(st.one_of(st.binary(max_size=100), texts))
def test_any_bytes_have_evidence(text: bytes) -> None:
    assert 0 <= of_text(text) < 2 * leavings.STATEMENTS


@given(st.one_of(texts, plain_texts))
def test_the_quick_proof_says_harmless_only_where_the_reading_does(text: bytes) -> None:
    if evidence.is_plain(text):
        assert reading.of_every_statement(text) == NOTHING


@given(st.sampled_from(SOURCES), st.data())
def test_the_quick_proof_is_not_misled_by_a_change_at_any_place(source: str, data: st.DataObject) -> None:
    raw = source.encode()
    place = data.draw(st.integers(0, len(raw)))
    part = data.draw(st.sampled_from(FRAGMENTS))
    changed = raw[:place] + part + raw[place + data.draw(st.integers(0, 3)) :]
    if evidence.is_plain(changed):
        assert reading.of_every_statement(changed) == NOTHING


@given(texts, texts)
def test_two_statements_leave_what_each_of_them_leaves(first: bytes, second: bytes) -> None:
    first += b"\n"
    if not of_text(first) & UNREAD:
        assert of_text(first + b";" + second) == of_text(first) | of_text(second)


@given(st.sampled_from(SOURCES))
def test_white_space_and_comments_around_change_nothing(text: str) -> None:
    raw = text.encode()
    if not of_text(raw) & UNREAD:
        assert of_text(b"/* ' */ " + raw + b"\n-- '") == of_text(raw)


# -- the cache ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(SOURCES), max_size=40), st.integers(0, 2000))
def test_the_cache_says_what_of_text_says(asked: list[str], size: int) -> None:
    cache = Texts(size)
    for text in asked:
        assert cache.look(text.encode()) == of_text(text.encode())


def test_a_text_that_is_too_long_is_not_read() -> None:
    cache = Texts()
    assert cache.look(b"SELECT '" + b"x" * (LONGEST_READ - 9) + b"'") == NOTHING
    assert cache.look(b"SELECT '" + b"x" * (LONGEST_READ - 8) + b"'") == UNREAD | CLEANING
    assert len(cache) == 1


def test_the_cache_is_bounded_in_bytes() -> None:
    cache = Texts(100_000)
    for number in range(10_000):
        cache.look(b"SELECT f(%d)" % number)
    assert 300 < len(cache) < 100_000 // (evidence.ENTRY_OVERHEAD + 12)


def test_a_text_that_is_asked_for_stays_while_others_come_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def noting(text: bytes) -> int:
        read.append(text)
        return CLEANING

    monkeypatch.setattr(evidence, "of_text", noting)
    cache = Texts(100_000)
    for number in range(10_000):
        cache.look(b"SELECT f(%d)" % number)
        cache.look(b"SELECT kept()")
    assert read.count(b"SELECT kept()") == 1


def test_a_plain_text_is_remembered_like_any_other_and_answered_the_same() -> None:
    cache = Texts()
    for _ in range(2):
        for number in range(100):
            assert cache.look(b"SELECT a FROM t WHERE b = %d" % number) == NOTHING
    assert len(cache) == 100
