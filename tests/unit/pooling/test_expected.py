"""The replies that are to come, and what they do to the tables of statements."""

from __future__ import annotations

from struct import pack

import pytest

from pgpooler.errors import ProtocolViolation
from pgpooler.pooling.expected import shape_of

COLUMN = {"name": b"a", "table": 0, "number": 0, "type": 23, "size": 4, "modifier": -1, "format": 0}


def described(*columns: dict[str, object]) -> bytes:
    """A RowDescription (protocol-message-formats) of columns that differ from COLUMN in this."""
    body = pack("!h", len(columns))
    for column in ({**COLUMN, **changed} for changed in columns):
        fields = ("table", "number", "type", "size", "modifier", "format")
        body += column["name"] + b"\0" + pack("!ihihih", *(column[field] for field in fields))  # type: ignore[operator]
    return body


@pytest.mark.parametrize("change", [{"table": 7}, {"number": 3}, {"format": 1}])
@pytest.mark.parametrize("place", [0, 1])
def test_the_shape_of_rows_says_nothing_of_where_they_come_from(place: int, change: dict[str, object]) -> None:
    columns: list[dict[str, object]] = [{}, {"name": b"b"}]
    same = [{**column, **(change if number == place else {})} for number, column in enumerate(columns)]
    assert shape_of(described(*same)) == shape_of(described(*columns))


@pytest.mark.parametrize("change", [{"name": b"x"}, {"type": 25}, {"size": 8}, {"modifier": 5}])
@pytest.mark.parametrize("place", [0, 1])
def test_the_shape_of_rows_says_what_a_client_reads_them_by(place: int, change: dict[str, object]) -> None:
    columns: list[dict[str, object]] = [{}, {"name": b"b"}]
    other = [{**column, **(change if number == place else {})} for number, column in enumerate(columns)]
    assert shape_of(described(*other)) != shape_of(described(*columns))
    assert shape_of(described(*columns)) != shape_of(described(*columns, {}))


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_description_without_its_end_is_malformed(cut: int) -> None:
    with pytest.raises(ProtocolViolation, match="RowDescription"):
        shape_of(pack("!h", 2) + described({})[2:-cut] if cut > 1 else b"\0")
