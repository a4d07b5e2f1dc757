"""Names of prepared statements in SQL."""

from __future__ import annotations

import pytest

from pgpooler.pooling.sql_names import ALL, deallocated, spoken_of


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"DEALLOCATE a", [b"a"]),
        (b"deallocate Prepare A", [b"a"]),
        (b"DEALLOCATE ALL", [ALL]),
        (b"DEALLOCATE PREPARE ALL", [ALL]),
        (b'DEALLOCATE "all"', [b"all"]),
        (b'DEALLOCATE "prepare"', [b"prepare"]),
        (b'DEALLOCATE "A b"', [b"A b"]),
        (b"DISCARD ALL", [ALL]),
        (b"DISCARD TEMP; DEALLOCATE a; DISCARD PLANS", [b"a"]),
        (b"DEALLOCATE a; SELECT 1; DEALLOCATE b; DISCARD ALL", [b"a", b"b", ALL]),
        (b"SELECT 'DEALLOCATE a'", []),
        (b'SELECT "deallocate", a', []),
        (b"DEALLOCATE", []),
    ],
)
def test_what_a_text_deallocates_is_found_in_its_order(text: bytes, names: list[bytes]) -> None:
    assert deallocated(text) == names


def test_whatever_a_text_names_it_may_speak_of() -> None:
    assert spoken_of(b"EXECUTE A ('b', 1, $2); -- c\n EXECUTE \"D\"") == {b"execute", b"a", b"D"}
