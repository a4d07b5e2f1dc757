"""How results are shown."""

from __future__ import annotations

from pgpooler.demo.checks import Check, aligned, table


def test_the_columns_of_a_table_line_up() -> None:
    assert aligned([("a", "long cell", "b"), ("longer", "c", "")]) == "a       long cell  b\nlonger  c"


def test_a_failed_check_is_marked_and_counted() -> None:
    good = Check("routed by list", "postgres / main", "primary", "primary")
    bad = Check("routed by user", "reader / misc", "replica", "error: 3D000 no such database")
    lines = table([good, bad]).splitlines()
    assert lines[1].startswith("ok    routed by list")
    assert lines[2].startswith("FAIL  routed by user")
    assert lines[2].endswith("replica   error: 3D000 no such database")
    assert lines[-1] == "1 of 2 checks passed"


def test_a_check_tells_a_machine_what_it_tells_a_person() -> None:
    assert Check("a", "b", "c", "d").values() == {
        "subject": "a",
        "client": "b",
        "expected": "c",
        "got": "d",
        "passed": False,
    }
