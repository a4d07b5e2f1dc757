"""Evidence against real servers: what a statement really leaves in its session is covered by what evidence says."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pgpooler.demo.postgres import PostgresServer
from pgpooler.pooling.evidence import (
    ADVISORY_LOCK,
    CLEANING,
    FOR_THE_TRANSACTION,
    HELD_CURSOR,
    LISTENING,
    LOADED,
    NOTHING,
    PREPARED,
    RELEASING,
    RESTORING,
    SETTINGS,
    STATEMENTS,
    TEMPORARY,
    UNREAD,
    of_tag,
    of_text,
)
from pgpooler.pooling.evidence.harmless_functions import (
    HARMLESS,
    NEWER,
    NEWER_SYNTAX,
    OLDER,
    SYNTAX,
    UNCHANGING,
    VOLATILE,
)
from pgpooler.pooling.evidence.leavings import COMMANDS, FUNCTIONS
from spec.codec import Instance
from tests.integration.wire import TERMINATE, Wire, row_values

SCHEMA = r"""
CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 0, b text, j jsonb, at timestamptz DEFAULT now());
INSERT INTO t (id, a, b) SELECT n, n % 3, 'b' || n FROM generate_series(1, 20) AS n;
CREATE TABLE u (id int PRIMARY KEY, t int REFERENCES t (id) DEFERRABLE);
INSERT INTO u (id, t) VALUES (1, 1), (2, 2);
CREATE TABLE temp (id int);
CREATE TABLE serial (id serial, a int);
CREATE TABLE part (id int) PARTITION BY RANGE (id);
CREATE SEQUENCE s;
CREATE MATERIALIZED VIEW m AS SELECT id FROM t;
CREATE VIEW settings AS SELECT name, setting FROM pg_settings;
CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM set_config('app.f', $1::text, false), pg_advisory_lock($1); RETURN $1; END $$;
CREATE FUNCTION g(t) RETURNS int LANGUAGE sql AS 'SELECT f(($1).id)';
CREATE FUNCTION filter(int) RETURNS int LANGUAGE sql AS 'SELECT f($1)';
CREATE FUNCTION conflict(int) RETURNS boolean LANGUAGE sql AS 'SELECT f($1) > 0';
CREATE FUNCTION pg_catalog_lower(text) RETURNS int LANGUAGE sql AS 'SELECT f(1)';
CREATE SCHEMA lower;
CREATE FUNCTION lower.lower(text) RETURNS int LANGUAGE sql AS 'SELECT f(1)';
CREATE PROCEDURE p(int) LANGUAGE sql AS 'SELECT f($1)';
CREATE FUNCTION on_insert() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM f(NEW.id); CREATE TEMP TABLE left_by_trigger (a int); RETURN NEW; END $$;
CREATE TABLE triggers (id int);
CREATE TRIGGER on_insert BEFORE INSERT ON triggers FOR EACH ROW EXECUTE FUNCTION on_insert();
"""

SESSION = """
SELECT json_build_object(
  'settings', concat((SELECT json_object_agg(name, setting) FROM pg_settings WHERE source = 'session'),
    current_setting('app.f', true), current_setting('app.x', true), current_setting('local.x', true)),
  'roles', current_user || '/' || session_user,
  'channels', (SELECT count(*) FROM pg_listening_channels()),
  'locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
  'cursors', (SELECT count(*) FROM pg_cursors),
  'prepared', (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),
  'temporary', (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema())
    + (SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema())
    + (SELECT count(*) FROM pg_type WHERE typnamespace = pg_my_temp_schema()))::text
"""
COVERED_BY = {
    "settings": SETTINGS,
    "roles": SETTINGS,
    "sequence": CLEANING,
    "channels": CLEANING | LISTENING,
    "locks": CLEANING | ADVISORY_LOCK,
    "cursors": CLEANING | HELD_CURSOR,
    "prepared": CLEANING | PREPARED,
    "temporary": CLEANING | TEMPORARY,
}
"""What a session may differ in, and what evidence must say of it."""

LEAVING = r"""
SET statement_timeout = 12345
SET SESSION statement_timeout TO '12345ms'
set/**/statement_timeout/**/to/**/12345
SET app.x = 'y'
SET local.x = 'y'
SET "statement_timeout" = 12345
SET TIME ZONE 'Asia/Tokyo'
SET NAMES 'LATIN1'
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
SET ROLE pg_monitor
SET SESSION AUTHORIZATION pg_monitor
SET search_path TO pg_temp; CREATE TABLE x (a int)
BEGIN; SET LOCAL search_path = pg_temp; CREATE TABLE x (a int); COMMIT
BEGIN; SET LOCAL search_path = 'pg_temp', 'public'; CREATE TABLE x (a int); COMMIT
BEGIN; SELECT set_config('search_path', 'pg_temp', true); CREATE TABLE x (a int); COMMIT
BEGIN; SET statement_timeout = 12345; COMMIT
SELECT 1; SET statement_timeout = 12345; SELECT 2
SELECT set_config('app.x', 'y', false)
SELECT pg_catalog.set_config('app.x', 'y', 'f')
SELECT "set_config"('app.x', 'y', false)
SELECT SET_CONFIG /* true) */ ('app.x', 'y', false)
SELECT set_config('app.x', 'y', NOT true)
SELECT set_config('app.x', 'y', true AND false)
SELECT 'it''s', set_config('app.x', 'y', false)
SELECT E'\'', set_config('app.x', 'y', false)
SELECT $$'$$, set_config('app.x', 'y', false)
SELECT /* /* ' */ */ set_config('app.x', 'y', false) -- '
SELECT U&"\0073et_config"('app.x', 'y', false)
SELECT U&"!0073et_config" UESCAPE '!' ('app.x', 'y', false)
SELECT a FROM t WHERE set_config('app.x', 'y', false) = 'y' LIMIT 1
SELECT count(*) FILTER (WHERE set_config('app.x', b, false) = b) FROM t
WITH x AS (SELECT set_config('app.x', 'y', false) AS y) SELECT y FROM x
WITH x AS (UPDATE t SET b = set_config('app.x', 'y', false) WHERE id = 1 RETURNING 1) SELECT 1
WITH x AS (SELECT 1) (SELECT 1) ORDER BY set_config('app.x', 'y', false)
VALUES (set_config('app.x', 'y', false))
INSERT INTO t (id, b) VALUES (1000, set_config('app.x', 'y', false))
UPDATE t SET b = set_config('app.x', 'y', false) WHERE id = 1
DELETE FROM t WHERE id = 1001 OR set_config('app.x', 'y', false) = 'z'
MERGE INTO t USING u ON t.id = u.id AND set_config('app.x', 'y', false) = 'y' WHEN NOT MATCHED THEN DO NOTHING
EXPLAIN ANALYZE SELECT set_config('app.x', 'y', false)
EXPLAIN (ANALYZE, COSTS off) UPDATE t SET b = set_config('app.x', 'y', false) WHERE id = 1
COPY (SELECT set_config('app.x', 'y', false)) TO STDOUT
CREATE TABLE ctas AS SELECT set_config('app.x', 'y', false) AS b
SELECT set_config('app.x', 'y', false) AS b INTO made_by_select
ALTER TABLE t ALTER b TYPE text USING set_config('app.x', 'y', false)
UPDATE pg_settings SET setting = '12345' WHERE name = 'statement_timeout'
UPDATE "pg_catalog"."pg_settings" SET setting = '12345' WHERE name = 'statement_timeout'
SELECT nextval('s')
SELECT setval('s', 5), nextval('s'::regclass)
INSERT INTO t (id) VALUES (nextval('s') + 2000)
ALTER TABLE t ADD COLUMN c serial
ALTER TABLE t ADD COLUMN c int GENERATED ALWAYS AS IDENTITY
LISTEN x
listen "x"; SELECT 1
BEGIN; LISTEN x; COMMIT
SELECT pg_advisory_lock(1)
SELECT pg_advisory_lock_shared(1, 2)
SELECT pg_try_advisory_lock(1) FROM t LIMIT 1
SELECT pg_catalog.pg_try_advisory_lock_shared(1)
SELECT * FROM pg_advisory_lock(1)
SELECT 1 FROM t JOIN u ON true RIGHT JOIN pg_advisory_lock(1) AS x ON true
SELECT DISTINCT ON (a) pg_try_advisory_lock(1) FROM t
BEGIN; SELECT pg_advisory_lock(1); ROLLBACK
DECLARE c CURSOR WITH HOLD FOR SELECT 1
DECLARE c INSENSITIVE SCROLL CURSOR WITH HOLD FOR SELECT a FROM t
BEGIN; DECLARE c CURSOR /* ; */ WITH /**/ HOLD FOR SELECT 1; COMMIT
PREPARE x AS SELECT 1
PREPARE x (int) AS SELECT $1
PREPARE transaction AS SELECT 'a'
CREATE TEMP TABLE x (a int)
CREATE TEMPORARY TABLE x AS SELECT 1 AS a
CREATE LOCAL TEMPORARY TABLE x (a int)
CREATE GLOBAL TEMP TABLE x (a int)
CREATE TEMP TABLE IF NOT EXISTS x (a int) ON COMMIT DELETE ROWS
CREATE TABLE IF NOT EXISTS pg_temp.x (a int)
CREATE TABLE pg_temp.x (a int)
CREATE TABLE "pg_temp".x (a int)
CREATE TABLE pg_temp . x AS SELECT 1
CREATE TEMP VIEW x AS SELECT 1 AS a
CREATE OR REPLACE TEMP VIEW x AS SELECT 1 AS a
CREATE TEMP RECURSIVE VIEW x (a) AS SELECT 1
CREATE TEMP SEQUENCE x
CREATE TYPE pg_temp.x AS (a int)
CREATE DOMAIN pg_temp.x AS int
CREATE FUNCTION pg_temp.x() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE TABLE x (a int); CREATE VIEW pg_temp.y AS SELECT a FROM x
SELECT 1 AS a INTO TEMP x
SELECT 1 AS a INTO TEMPORARY TABLE x
SELECT 1 AS a INTO LOCAL TEMP x
SELECT 1 AS a INTO pg_temp.x
WITH y AS (SELECT 1 AS a) SELECT a INTO TEMP x FROM y
EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1 AS a
BEGIN; CREATE TEMP TABLE x (a int); COMMIT
CREATE TEMP TABLE x (a int); INSERT INTO x VALUES (1); SELECT * FROM x
PREPARE x AS SELECT set_config('app.x', 'y', false); EXECUTE x; DEALLOCATE x
CREATE TEMP TABLE x (a int); DROP TABLE x; LISTEN y
""".strip().split("\n")

OPAQUE = r"""
DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$
DO LANGUAGE plpgsql 'BEGIN CREATE TEMP TABLE x (a int); END'
CALL p(1)
SELECT f(1)
SELECT public.f(1)
SELECT "f" (1)
SELECT * FROM f(1)
SELECT * FROM t, LATERAL f(t.id) AS x LIMIT 1
SELECT * FROM t JOIN u ON f(1) = 1
SELECT * FROM ROWS FROM (f(1)) AS x
SELECT lower.lower('a')
SELECT DISTINCT ON (a) f(a) FROM t
SELECT DISTINCT ON (a) filter(a) FROM t
SELECT 1 OPERATOR(pg_catalog.+) f(1)
SELECT CASE WHEN true THEN f(1) END
SELECT 1 WHERE 1 IN (f(1))
SELECT (ARRAY[f(1), 2])[1]
SELECT 1 ORDER BY f(1)
SELECT 1 LIMIT f(1)
SELECT g(t) FROM t WHERE id = 2
SELECT count(*) FROM t JOIN u ON conflict(t.id)
SELECT pg_catalog_lower('a')
SELECT * FROM ts_stat('SELECT to_tsvector(f(1)::text)')
INSERT INTO t (id) VALUES (f(3000))
INSERT INTO t (id) SELECT f(3001)
COPY (SELECT f(1)) TO STDOUT
EXPLAIN ANALYZE SELECT f(1)
CREATE INDEX ON t (a) WHERE id > 5; SELECT f(1)
CREATE TABLE y AS SELECT 1 FROM t AS v JOIN t AS w ON f(1) = 1
CREATE TABLE y PARTITION OF part FOR VALUES FROM (f(1)) TO (9)
PREPARE x AS SELECT f(1); EXECUTE x; DEALLOCATE ALL
BEGIN; DECLARE c CURSOR FOR SELECT f(1); FETCH c; COMMIT
""".strip().split("\n")
"""They leave more than their text tells: that it is doubtful is enough."""

ORDINARY = r"""
SELECT 1
SELECT id, a, b FROM t WHERE id = 1 AND b <> 'it''s' OR a IN (1, 2, 3)
SELECT t.id, count(*), max(u.id), coalesce(sum(t.a), 0) FROM t LEFT JOIN u ON u.t = t.id GROUP BY t.id ORDER BY 1
SELECT "t"."id", lower("t"."b") FROM "t" WHERE "t"."b" LIKE '%x\%' OR b ~ '^\d+$' LIMIT 21 OFFSET (1)
SELECT 'SET x', $$LISTEN a; set_config('a', 'b', false)$$, E'\'; LISTEN a; --' AS "pg_advisory_lock(1)"
SELECT /* CREATE TEMP TABLE */ 1 -- ; LISTEN a
SELECT id::numeric(10, 2), b::varchar(5), at::timestamp(3), CAST(a AS character varying(3)) FROM t
SELECT now(), clock_timestamp(), current_date, current_timestamp(3), localtime, statement_timestamp()
SELECT date_trunc('day', at), extract(epoch FROM at), to_char(at, 'YYYY'), at AT TIME ZONE ('UTC') FROM t
SELECT array_agg(id ORDER BY id), string_agg(b, ','), json_agg(t), jsonb_build_object('a', 1) FROM t
SELECT row_number() OVER (PARTITION BY a ORDER BY id), lag(id) OVER w FROM t WINDOW w AS (ORDER BY id)
SELECT count(*) FILTER (WHERE a > 1) OVER (), percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t GROUP BY a
SELECT a, count(*) FROM t GROUP BY GROUPING SETS ((a), ()) HAVING count(*) > (0)
SELECT a, count(*) FROM t GROUP BY ROLLUP (a)
SELECT DISTINCT ON (a) a, id FROM t ORDER BY a, (id)
SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v (x, y) JOIN (SELECT 1 AS x) w USING (x)
SELECT * FROM (VALUES (1, 'a')) v(x, y), unnest(ARRAY[1, 2]) WITH ORDINALITY AS o(n, i), generate_series(1, 3) g(h)
SELECT * FROM t TABLESAMPLE bernoulli (50) REPEATABLE (1)
SELECT EXISTS (SELECT 1 FROM u), NOT (true), ARRAY(SELECT 1), (SELECT max(id) FROM t), ROW(1, 2) = (1, 2)
SELECT j ->> 'a', j #> '{a,b}', j @> '{"a": 1}', jsonb_path_query(j, '$.a') FROM t
SELECT substring('abc' FROM 1 FOR 2), position('a' IN 'abc'), trim(BOTH 'x' FROM 'xax'), overlay('a' PLACING 'b' FROM 1)
SELECT CASE WHEN (a) > 1 THEN (1) ELSE (2) END, nullif(a, 1), greatest(1, 2), random(), gen_random_uuid() FROM t
SELECT current_setting('app.x', true), current_setting('search_path'), pg_backend_pid(), version()
SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(1, 2), hashtext('a')
SELECT set_config('app.x', 'y', true)
SELECT set_config('search_path', 'public', true)
SELECT pg_notify('x', 'y')
SELECT name, setting FROM pg_settings LIMIT 1
SELECT name FROM settings LIMIT 1
SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname !~ '^pg_temp' LIMIT 1
SELECT a AS temp, id AS "set" FROM t
SELECT * FROM temp
SELECT id FROM t FOR UPDATE
SELECT 1 UNION ALL (SELECT 2) EXCEPT SELECT 3
(SELECT 1) ORDER BY 1
TABLE t
VALUES (1), (2)
WITH x(n) AS (SELECT 1), y AS MATERIALIZED (SELECT n FROM x) SELECT * FROM y
WITH RECURSIVE x(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM x WHERE n < 5) SELECT max(n) FROM x
WITH x AS (INSERT INTO t (id) VALUES (100) RETURNING id), y(z) AS (SELECT id FROM x) SELECT z FROM y
WITH x AS (SELECT 1 AS n) INSERT INTO u (id, t) SELECT n + 8, n FROM x
INSERT INTO t (id, a) VALUES (101, -1), (102, +2)
INSERT INTO t (id, a) VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET a = excluded.a, (b, j) = ('x', '{}')
INSERT INTO t AS x (id) SELECT 103 ON CONFLICT DO NOTHING RETURNING id, lower(b)
INSERT INTO temp (id) VALUES (1)
UPDATE t SET a = a + 1, b = upper(b) FROM u WHERE u.t = t.id
UPDATE t SET (a, b) = (SELECT 1, 'x') WHERE id = 1
DELETE FROM t USING u WHERE t.id = u.id + 5 RETURNING t.*
MERGE INTO t USING u ON (t.id = u.id) WHEN MATCHED THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN DO NOTHING
COPY t (id, a) TO STDOUT
COPY t TO STDOUT (FORMAT csv, HEADER)
COPY (SELECT id, lower(b) FROM t) TO STDOUT WITH (FORMAT binary)
BEGIN; SET LOCAL statement_timeout = '5s'; SET LOCAL search_path TO public; SELECT 1; COMMIT
BEGIN; SET LOCAL ROLE pg_monitor; SELECT 1; COMMIT
BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SELECT 1; END
START TRANSACTION; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SET CONSTRAINTS ALL DEFERRED; ROLLBACK
BEGIN; SAVEPOINT x; ROLLBACK TO SAVEPOINT x; RELEASE SAVEPOINT x; ABORT
BEGIN; DECLARE c CURSOR FOR SELECT id FROM t; FETCH 2 FROM c; MOVE c; COMMIT
BEGIN; DECLARE c SCROLL CURSOR WITHOUT HOLD FOR SELECT 1; COMMIT
BEGIN; LOCK TABLE t IN SHARE MODE; TRUNCATE u RESTART IDENTITY; COMMIT
EXPLAIN SELECT lower(b) FROM t
EXPLAIN (ANALYZE, COSTS off, TIMING off) SELECT count(*) FROM t
EXPLAIN ANALYZE DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1
SHOW search_path
SHOW ALL
NOTIFY x, 'y'
ANALYZE t (a, b)
VACUUM t
VACUUM (ANALYZE) t (a)
CHECKPOINT
CREATE TABLE x (id int PRIMARY KEY DEFAULT nextval('s'), a varchar(10), b numeric(5, 2) CHECK (b > 0), UNIQUE (a, b))
CREATE TABLE x (id serial, t int REFERENCES t (id), c int GENERATED ALWAYS AS (1 + 1) STORED, d text DEFAULT f(1))
CREATE TABLE IF NOT EXISTS public.x (LIKE t INCLUDING ALL) WITH (fillfactor = 70)
CREATE TABLE x AS SELECT id, lower(b) FROM t
CREATE TABLE x PARTITION OF part FOR VALUES FROM (1) TO (10)
CREATE UNLOGGED TABLE x (a int)
SELECT id INTO x FROM t
CREATE INDEX ON t (a)
CREATE UNIQUE INDEX IF NOT EXISTS i ON public.t USING btree (id, lower(b)) INCLUDE (a) WHERE a > 1
CREATE VIEW v AS SELECT f(id), set_config('app.x', 'y', false) FROM t
CREATE OR REPLACE VIEW v (x) AS SELECT nextval('s')
CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM t
REFRESH MATERIALIZED VIEW m
CREATE FUNCTION x(a int DEFAULT f(1)) RETURNS TABLE (b int) LANGUAGE sql AS $$ SELECT f(1) $$
CREATE FUNCTION x() RETURNS int LANGUAGE plpgsql SET search_path = pg_catalog AS 'BEGIN RETURN f(1); END'
CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION on_insert()
CREATE RULE x AS ON DELETE TO t DO ALSO SELECT f(1)
CREATE SEQUENCE x; ALTER SEQUENCE x RESTART
CREATE TYPE x AS ENUM ('a'); CREATE DOMAIN y AS int CHECK (f(VALUE) > 0); CREATE SCHEMA z
CREATE STATISTICS x (dependencies) ON a, b FROM t
ALTER TABLE t ADD COLUMN c numeric(10, 2) DEFAULT 0, ADD UNIQUE (a, id), ALTER a TYPE bigint
ALTER TABLE u ADD CONSTRAINT x FOREIGN KEY (id) REFERENCES t (id) NOT VALID
ALTER TABLE t SET (fillfactor = 50)
ALTER FUNCTION f(int) COST 5
GRANT SELECT (id), UPDATE ON t TO pg_monitor; GRANT EXECUTE ON FUNCTION f(int) TO pg_monitor
REVOKE ALL ON FUNCTION f(int) FROM PUBLIC; COMMENT ON FUNCTION f(int) IS 'x'
REINDEX TABLE t
CLUSTER t USING t_pkey
""".strip().split("\n")

RELEASES = r"""
CREATE TEMP TABLE x (a int) ON COMMIT DROP
CREATE TEMPORARY TABLE x ON COMMIT DROP AS SELECT 1 AS a
BEGIN; CREATE TEMP TABLE x (a int) ON COMMIT DROP; INSERT INTO x VALUES (1); COMMIT
LISTEN x; UNLISTEN *
PREPARE x AS SELECT 1; DEALLOCATE x
PREPARE x AS SELECT 1; DEALLOCATE ALL
DECLARE x CURSOR WITH HOLD FOR SELECT 1; CLOSE x
CREATE TEMP TABLE x (a int); DROP TABLE x
CREATE TEMP TABLE x (a int); DISCARD TEMP
SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock(1)
SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock_all()
""".strip().split("\n")
"""They leave no pin in the end, and where they had made one, they say that it may have gone."""


@pytest.fixture(scope="module")
def workshop(postgres: PostgresServer) -> Iterator[Wire]:
    """A session in the database of all these statements, which makes it as before after each."""
    name = f"test_{uuid.uuid4().hex}"
    postgres.execute(f"CREATE DATABASE {name}")
    with connected(postgres, name) as wire:
        yield wire
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def session(postgres: PostgresServer, workshop: Wire) -> Iterator[Wire]:
    """A fresh session, with the objects of SCHEMA before it."""
    workshop.values("DROP SCHEMA IF EXISTS public, lower, z CASCADE; CREATE SCHEMA public;" + SCHEMA)
    (database,) = workshop.values("SELECT current_database()")
    with connected(postgres, database) as wire:
        yield wire
        wire.send(TERMINATE)
        wire.rest()


@contextmanager
def connected(postgres: PostgresServer, database: str) -> Iterator[Wire]:
    with Wire((postgres.host, postgres.port)) as wire:
        yield wire.log_in(postgres.superuser, postgres.password, database)


def state(wire: Wire) -> dict[str, Any]:
    """What can be told from this session, and what it would say to lastval()."""
    (said,) = wire.values(SESSION)
    found: dict[str, Any] = json.loads(said)
    numbers = wire.ask("SELECT lastval()")
    found["sequence"] = None if any(answer.name == "ErrorResponse" for answer in numbers) else row_values(numbers)
    return found


def run(wire: Wire, text: str) -> tuple[list[str], int]:
    """Run statements, commit what they leave open; the names of what differs then, and the evidence of their tags."""
    before = state(wire)
    answers = wire.ask(text)
    errors = [answer for answer in answers if answer.name == "ErrorResponse"]
    assert not errors, errors
    if answers[-1]["status"] != ord("I"):
        wire.ask("COMMIT")
    after = state(wire)
    return [name for name in COVERED_BY if before[name] != after[name]], evidence_of(answers)


def evidence_of(answers: list[Instance]) -> int:
    evidence = NOTHING
    for answer in answers:
        if answer.name == "CommandComplete":
            tag = answer["tag"]
            assert isinstance(tag, bytes)
            evidence |= of_tag(tag)
    return evidence


@pytest.mark.parametrize("text", LEAVING)
def test_whatever_a_statement_leaves_its_text_tells(session: Wire, text: str) -> None:
    left, by_tags = run(session, text)
    assert left, "this statement is no example"
    for name in left:
        assert of_text(text.encode()) & UNREAD or of_text(text.encode()) & COVERED_BY[name] == COVERED_BY[name], name
    assert (of_text(text.encode()) | by_tags) & (CLEANING | SETTINGS)


@pytest.mark.parametrize("text", OPAQUE)
def test_whatever_a_statement_hides_its_text_is_doubtful(session: Wire, text: str) -> None:
    left, _ = run(session, text)
    assert left, "this statement is no example"
    assert of_text(text.encode()) & CLEANING


@pytest.mark.parametrize("text", ORDINARY)
def test_an_ordinary_statement_leaves_nothing_and_its_text_tells_so(session: Wire, text: str) -> None:
    left, _ = run(session, text)
    assert left == []
    assert of_text(text.encode()) & ~FOR_THE_TRANSACTION == NOTHING


@pytest.mark.parametrize("text", RELEASES)
def test_what_a_statement_takes_back_it_says_to_have_released(session: Wire, text: str) -> None:
    left, by_tags = run(session, text)
    assert left == []
    evidence = of_text(text.encode())
    assert evidence & CLEANING
    assert (evidence | by_tags) & RELEASING or not evidence & ~CLEANING


def test_discard_all_is_told_by_its_tag(session: Wire) -> None:
    session.ask("LISTEN x")
    left, by_tags = run(session, "DISCARD ALL")
    assert left == ["channels"]
    assert by_tags == RELEASING | CLEANING | SETTINGS | RESTORING
    assert of_text(b"DISCARD ALL") == by_tags | STATEMENTS


def test_an_added_library_is_told(session: Wire) -> None:
    assert evidence_of(session.ask("LOAD 'plpgsql'")) == of_text(b"LOAD 'plpgsql'") == LOADED | CLEANING


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("INSERT INTO serial (a) VALUES (1)", ["sequence"]),
        ("INSERT INTO triggers VALUES (1)", ["settings", "locks", "temporary"]),
        ("SELECT t.g FROM t WHERE id = 2", ["settings", "locks"]),
    ],
)
def test_the_limits_are_those_that_are_documented(session: Wire, text: str, left: list[str]) -> None:
    assert run(session, text)[0] == left
    assert of_text(text.encode()) == NOTHING


@pytest.mark.parametrize("setting", ["on", "off"])
def test_a_backslash_hides_nothing_in_either_kind_of_strings(session: Wire, setting: str) -> None:
    session.ask(f"SET standard_conforming_strings = {setting}; SET escape_string_warning = off")
    text = r"SELECT '\', set_config('app.x', 'y', false), '\'"
    shown = r"SELECT '\'', set_config(''app.x'', ''y'', false), ''\''"
    for statement in (text, shown):
        assert of_text(statement.encode()) & UNREAD
    answers = session.ask(text)
    assert [answer.name for answer in answers].count("ErrorResponse") == (setting == "off")


# -- the tables --------------------------------------------------------------------------------------------------------


def names(postgres: PostgresServer, query: str) -> set[bytes]:
    return {str(row[0]).encode() for row in postgres.execute(query)}


def test_every_harmless_function_is_one_of_the_servers(postgres: PostgresServer) -> None:
    there = names(postgres, "SELECT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace")
    expected = UNCHANGING | VOLATILE
    for version, added in NEWER.items():
        assert not added & (UNCHANGING | VOLATILE | OLDER)
        expected |= added if version <= postgres.version_number else frozenset()
    assert expected - there == set()
    assert HARMLESS - expected - OLDER - NEWER_SYNTAX - frozenset().union(*NEWER.values()) == set()


def test_every_harmless_function_that_is_volatile_was_looked_at(postgres: PostgresServer) -> None:
    volatile = names(
        postgres,
        "SELECT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v'",
    )
    assert UNCHANGING & volatile == set()
    assert frozenset().union(*NEWER.values()) & volatile <= {
        *(b"array_sample", b"array_shuffle", b"random_normal", b"uuidv4", b"uuidv7"),
    }


def test_the_functions_that_leave_something_are_the_servers(postgres: PostgresServer) -> None:
    there = names(postgres, "SELECT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace")
    assert FUNCTIONS.keys() - there == {b"pg_start_backup"}  # as pg_backup_start was called before PostgreSQL 15


def test_every_session_lock_function_of_the_server_is_known(postgres: PostgresServer) -> None:
    there = names(postgres, "SELECT proname FROM pg_proc WHERE proname ~ '^pg_(try_)?advisory_' AND proname !~ 'xact'")
    assert there == {name for name in FUNCTIONS if b"advisory" in name}


def test_no_word_that_counts_as_syntax_can_name_a_function(postgres: PostgresServer) -> None:
    words = names(postgres, "SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'C')")
    newer = {b"system_user"} if postgres.version_number < 16 else set()
    assert SYNTAX - words == newer
    assert words - SYNTAX <= NEWER_SYNTAX | {b"json_object"}


def test_every_command_is_a_keyword_of_the_server(postgres: PostgresServer) -> None:
    assert COMMANDS.keys() - names(postgres, "SELECT word FROM pg_get_keywords()") == set()
