"""psql through PgPooler, in session and in transaction mode, doing the same as on a direct connection."""

from __future__ import annotations

from pathlib import Path

from pgpooler.demo import tools
from tests.integration.drivers.targets import Both, Target


def psql(target: Target, *arguments: str) -> str:
    """What psql prints; it must not fail, nor complain."""
    completed = tools.run_psql(target.url, *arguments)
    assert (completed.returncode, completed.stderr) == (0, ""), completed.stderr
    return completed.stdout


def commands(*texts: str) -> list[str]:
    return [word for text in texts for word in ("-c", text)]


def script(directory: Path, text: str) -> str:
    """A file for psql -f: what -c cannot hold is both SQL and commands of psql."""
    path = directory / "script.sql"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_psql_shows_the_same(both: Both, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        r"""
SELECT 1 AS one, NULL, 'text', 1.5::numeric, '{1,2}'::int[];
\d pg_class
\l+ template1
\encoding
\dconfig TimeZone
SELECT 1\; SELECT 2\; SELECT 3;
BEGIN\; SELECT 4\; ROLLBACK;
DO $$BEGIN NULL; END$$;
SELECT 'a' AS x, 1 AS y \gdesc
SELECT 'set by gset' AS answer \gset
\echo :answer
SELECT $1::int + $2::int AS sum \bind 40 2 \g
""",
    )
    lines = both.alike(lambda target: psql(target, "-f", path)).splitlines()
    assert lines[-3:] == ["y|integer", "set by gset", "42"]


def test_psql_reports_errors_alike(both: Both) -> None:
    def work(target: Target) -> tuple[int, str]:
        arguments = ("-v", "ON_ERROR_STOP=0", "-v", "VERBOSITY=verbose")
        completed = tools.run_psql(
            target.url, *arguments, *commands("SELECT 1/0", "SELEC 1", "SELECT * FROM nowhere", "SELECT 'after'")
        )
        assert completed.stdout == "after\n"
        return completed.returncode, completed.stderr

    assert "22012" in both.alike(work)[1]


def test_psql_copies_in_and_out(both: Both, tmp_path: Path) -> None:
    rows = "".join(f"{number}\tline {number} \\N\n" for number in range(20_000)).replace("\\N", "ä\\\\")
    (tmp_path / "in").write_text(rows, encoding="utf-8")

    def work(target: Target) -> str:
        out = tmp_path / f"out-{target.port}"
        psql(
            target,
            *commands(
                "CREATE TEMP TABLE copied (number int, line text)",
                rf"\copy copied FROM '{tmp_path / 'in'}'",
                rf"\copy (SELECT * FROM copied ORDER BY number) TO '{out}'",
            ),
        )
        return out.read_text(encoding="utf-8")

    assert both.alike(work) == rows


def test_psql_reads_a_large_result_whole_and_in_portions(both: Both) -> None:
    query = "SELECT number, md5(number::text), repeat('x', 200) FROM generate_series(1, 100000) AS number"

    def work(target: Target) -> int:
        whole = psql(target, "-c", query)
        portions = psql(target, "-v", "FETCH_COUNT=1000", "-c", query)
        assert portions == whole
        return hash(whole)

    both.alike(work)


def test_psql_watches(both: Both, tmp_path: Path) -> None:
    path = script(tmp_path, "SELECT 'tick' \\watch i=0.05 c=5\n")

    def work(target: Target) -> list[str]:
        text = psql(target, "-f", path)
        return [line for line in text.splitlines() if line == "tick"]

    assert len(both.alike(work)) == 5


def test_psql_runs_a_script_with_transactions_cursors_and_copy_from_stdin(both: Both, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        r"""
CREATE TEMP TABLE items (id serial PRIMARY KEY, name text);
COPY items (name) FROM STDIN;
one
two
three
\.
BEGIN;
DECLARE every CURSOR FOR SELECT name FROM items ORDER BY id;
FETCH 2 FROM every;
MOVE 1 FROM every;
FETCH ALL FROM every;
SAVEPOINT here;
INSERT INTO items (name) VALUES ('four');
ROLLBACK TO here;
COMMIT;
PREPARE by_id(int) AS SELECT name FROM items WHERE id = $1;
EXECUTE by_id(3);
SELECT count(*) > 2 AS several FROM items \gset
\if :several
COPY items TO STDOUT;
\endif
INSERT INTO items (name) VALUES ('last') RETURNING name;
""",
    )
    assert both.alike(lambda target: psql(target, "-f", path)).splitlines()[-2:] == ["last", "INSERT 0 1"]
