"""The database that scripts are played in: what is there, and whether they have left it as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg

from pgpooler.demo.postgres import PostgresServer
from tests.integration.differential.scripts import Script

MADE: tuple[str, ...] = (
    "CREATE TABLE held (number int)",
    "CREATE TYPE mood AS ENUM ('sad', 'so-so', 'happy')",
    "CREATE TYPE pair AS (number int, word text)",
    "CREATE DOMAIN positive AS int CONSTRAINT is_positive CHECK (VALUE > 0)",
    "CREATE TYPE span AS RANGE (subtype = float8)",
    (
        "CREATE TABLE item (number int PRIMARY KEY, word text NOT NULL UNIQUE, price numeric(8, 2) DEFAULT 1.50"
        " CONSTRAINT price_is_fair CHECK (price BETWEEN 0 AND 1000), feeling mood,"
        " made date NOT NULL DEFAULT '2020-02-29')"
    ),
    (
        "INSERT INTO item SELECT n, 'word ' || n, n * 1.25, (ARRAY['sad', 'so-so', 'happy'])[n % 3 + 1]::mood, "
        "date '2020-01-30' + n FROM generate_series(1, 9) AS n"
    ),
    (
        "CREATE TABLE part (number int PRIMARY KEY, item int CONSTRAINT part_of_item REFERENCES item"
        " DEFERRABLE INITIALLY DEFERRED)"
    ),
    "CREATE SCHEMA other",
    'CREATE SCHEMA "Hostile, ""quoted"" schema"',
    "CREATE TABLE other.place (name text)",
    "INSERT INTO other.place VALUES ('other')",
    'CREATE TABLE "Hostile, ""quoted"" schema".place (name text)',
    'INSERT INTO "Hostile, ""quoted"" schema".place VALUES (\'hostile\')',
    "CREATE TABLE place (name text)",
    "INSERT INTO place VALUES ('public')",
    """CREATE FUNCTION complain() RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
      RAISE EXCEPTION USING ERRCODE = 'AB123', MESSAGE = 'all of it', DETAIL = 'the detail', HINT = 'the hint',
        SCHEMA = 'a schema', TABLE = 'a table', COLUMN = 'a column', DATATYPE = 'a type', CONSTRAINT = 'a constraint';
    END $$""",
    """CREATE FUNCTION remark(level text, words text) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
      CASE level
        WHEN 'debug' THEN RAISE DEBUG '%', words;
        WHEN 'log' THEN RAISE LOG '%', words;
        WHEN 'info' THEN RAISE INFO '%', words;
        WHEN 'notice' THEN RAISE NOTICE '%', words USING HINT = 'look', DETAIL = 'more';
        ELSE RAISE WARNING '%', words USING ERRCODE = '01001';
      END CASE;
      RETURN words;
    END $$""",
    "CREATE FUNCTION half(int) RETURNS int LANGUAGE sql AS 'SELECT 4 / $1'",
    "CREATE PROCEDURE twice(INOUT number int) LANGUAGE plpgsql AS 'BEGIN number := 2 * number; END'",
    (
        "CREATE PROCEDURE commits() LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO play VALUES (1); COMMIT; INSERT INTO play VALUES (2); ROLLBACK; END'"
    ),
    "GRANT SELECT ON item TO pg_monitor",
    "CREATE TABLE item_as_it_was AS TABLE item",
)

NEWEST = "SELECT max(oid) FROM (SELECT oid FROM pg_class UNION ALL SELECT oid FROM pg_type) AS every"

TRACES = {
    "relations": "SELECT relname FROM pg_class WHERE oid > %(newest)s AND relpersistence <> 't' AND relkind <> 't'",
    "types": "SELECT typname FROM pg_type WHERE oid > %(newest)s AND typnamespace::regnamespace::text !~ '^pg_t'",
    "schemas": "SELECT nspname FROM pg_namespace WHERE oid > %(newest)s AND nspname !~ '^pg_'",
    "functions": "SELECT proname FROM pg_proc WHERE oid > %(newest)s AND pronamespace::regnamespace::text !~ '^pg_t'",
    "roles": "SELECT rolname FROM pg_roles WHERE oid > %(newest)s",
    "prepared transactions": "SELECT gid FROM pg_prepared_xacts",
    "large objects": "SELECT oid::text FROM pg_largeobject_metadata",
    "rows": "SELECT i::text FROM (SELECT * FROM item EXCEPT TABLE item_as_it_was) AS i",
    "rows missing": "SELECT i::text FROM (SELECT * FROM item_as_it_was EXCEPT TABLE item) AS i",
    "references": "SELECT number::text FROM part UNION ALL SELECT number::text FROM held",
}
"""What a script may leave behind: the queries yield nothing when there is nothing of it."""
ALL_TRACES = " UNION ALL ".join(
    f"SELECT '{name}', trace FROM ({text}) AS found (trace)" for name, text in TRACES.items()
)

RESTORATION = """
SET client_min_messages TO warning;
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE pg_class.oid > {newest} AND relkind = 'r' AND relpersistence <> 't'
  LOOP EXECUTE 'DROP TABLE ' || name || ' CASCADE'; END LOOP;
  PERFORM lo_unlink(oid) FROM pg_largeobject_metadata;
END $$;
TRUNCATE item, part, held;
INSERT INTO item TABLE item_as_it_was
"""


class World:
    """The database, and a connection of our own to it."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        server.execute(*MADE, database=database)
        self.connection: psycopg.Connection[Any] = psycopg.connect(server.url(database), autocommit=True)
        ((self.newest,),) = self.connection.execute(NEWEST).fetchall()

    def traces(self) -> dict[str, Any]:
        """Return what is there that was not there at the beginning."""
        found: dict[str, list[str]] = {}
        for name, trace in self.connection.execute(ALL_TRACES.encode(), {"newest": self.newest}):
            found.setdefault(name, []).append(trace)
        return found

    @contextlib.contextmanager
    def ready_for(self, script: Script) -> Iterator[None]:
        """Have the table of a script while it is played."""
        if script.table:
            self.connection.execute(f"CREATE TABLE play ({script.table})".encode())
        try:
            yield
        finally:
            self.connection.execute(b"SET client_min_messages TO warning; DROP TABLE IF EXISTS play")

    def left_behind(self) -> dict[str, Any]:
        """Return what a script has left behind, which is no longer there then."""
        found = self.traces()
        if found:
            self.connection.execute(RESTORATION.format(newest=self.newest).encode())
        return found
