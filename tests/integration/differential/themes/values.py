"""Values of all types, in text and in binary, as results and as parameters."""

from __future__ import annotations

import struct

from spec.conformance.requests import bind, describe_portal, describe_statement, execute, parse
from tests.integration.differential.scripts import Script, Step, script, series

BINARY = (1,)


def quoted(text: str) -> str:
    """Return a text as a literal."""
    return "'" + text.replace("'", "''") + "'"


def in_both_formats(expression: str) -> Step:
    """Return the steps of one expression: described, then as text and in binary."""
    return series(
        parse(f"SELECT {expression} AS value"),
        describe_statement(),
        bind(),
        describe_portal(),
        execute(),
        bind(result_formats=BINARY),
        describe_portal(),
        execute(),
    )


def values(type_name: str, *texts: str) -> Script:
    """Return a script of values of a type: literals, NULL, parameters of no stated type, in both formats."""
    columns = ", ".join(f"{quoted(text)}::{type_name}" for text in texts)
    rows = [
        request
        for text in texts
        for formats in ((), BINARY)
        for request in (bind(text, result_formats=formats), execute())
    ]
    return script(
        f"values of {type_name}",
        f"SELECT {columns}, NULL::{type_name}",
        series(parse(f"SELECT $1::{type_name} AS value"), describe_statement(), *rows, bind(None), execute()),
        in_both_formats(f"ARRAY[{columns}, NULL]::{type_name}[]") if "[]" not in type_name else f"SELECT {columns}",
        series(parse(f"SELECT $1::{type_name}"), bind("by no means a value of it, nor {1,2}"), execute()),
    )


def in_binary(type_name: str, identifier: int, *items: bytes) -> Script:
    """Return a script of parameters of a type in binary, and one of them cut short."""
    rows = [
        request
        for item in items
        for result in ((), BINARY)
        for request in (bind(item, formats=BINARY, result_formats=result), execute())
    ]
    return script(
        f"parameters of {type_name} in binary",
        series(parse("SELECT $1 AS value", types=(identifier,)), describe_statement(), *rows),
        series(parse("SELECT $1 AS value", types=(identifier,)), bind(items[0][:-1], formats=BINARY), execute()),
        series(parse("SELECT $1 AS value", types=(identifier,)), bind(items[0] + b"\0", formats=BINARY), execute()),
    )


def array_of(element: int, *items: bytes) -> bytes:
    """Return an array of one dimension in binary."""
    head = struct.pack("!iiIii", 1, 0, element, len(items), 1)
    return head + b"".join(struct.pack("!i", len(item)) + item for item in items)


TEXTS = (
    values("boolean", "true", "f"),
    values("smallint", "0", "-32768", "32767"),
    values("integer", "0", "-2147483648", "2147483647"),
    values("bigint", "-9223372036854775808", "9223372036854775807"),
    values("real", "1.5", "-0", "NaN", "Infinity", "1e-38"),
    values("double precision", "3.141592653589793", "-Infinity", "NaN", "5e-324", "1.7976931348623157e308"),
    values("numeric", "0", "-1.50", "NaN", "Infinity", "1e131", "0.00000000000000000001", "9" * 60),
    values("numeric(8,3)", "1.2345", "-99999.999"),
    values("money", "12.34", "-1000000"),
    values("text", "", "plain", "quote ' and \\ and \n", "ünïcödé ☃ 𝄞"),
    values("varchar(5)", "abc", "12345   "),
    values("char(5)", "abc", ""),
    values('"char"', "x", ""),
    values("name", "a_name", "x" * 80),
    values("bytea", "", "\\x00ff10", "abc\\000def"),
    values("date", "2024-02-29", "0001-01-01 BC", "infinity", "-infinity", "5874897-12-31"),
    values("time", "00:00:00", "24:00:00", "12:34:56.789012"),
    values("time with time zone", "12:34:56+02", "23:59:59.999999-11:30"),
    values("timestamp", "2024-03-31 02:30:00", "infinity", "4713-01-01 BC", "1999-12-31 23:59:59.999999"),
    values("timestamp with time zone", "2024-03-31 02:30:00+00", "-infinity", "2024-10-27 01:30 Europe/Berlin"),
    values("interval", "1 year 2 mons -3 days 04:05:06.7", "infinity", "-00:00:01", "P1Y2M3DT4H"),
    values("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "{A0EEBC999C0B4EF8BB6D6BB9BD380A11}"),
    values("json", '{"a": [1, 2.50, null], "a": "twice"}', "null", '"\\u00e9"'),
    values("jsonb", '{"b": 1, "a": {"c": []}, "b": 2}', "[]", "1e3"),
    values("jsonpath", "$.a[*] ? (@ > 1)"),
    values("xid8", "0", "18446744073709551615"),
    values("inet", "192.168.0.1/24", "::1"),
    values("cidr", "10.0.0.0/8", "2001:db8::/32"),
    values("macaddr", "08:00:2b:01:02:03"),
    values("bit(4)", "1010"),
    values("bit varying", "", "101010101"),
    values("point", "(1.5,-2)"),
    values("box", "(1,1),(0,0)"),
    values("path", "[(0,0),(1,1),(2,0)]", "((0,0),(1,1))"),
    values("polygon", "((0,0),(1,0),(0,1))"),
    values("circle", "<(0,0),2.5>"),
    values("tsvector", "a:1 fat:2,4B cat"),
    values("tsquery", "fat & (rat | !cat)"),
    values("int4range", "[1,5)", "empty", "(,3]", "[2,2]"),
    values("tstzrange", "[2024-01-01 00:00+00,infinity)"),
    values("nummultirange", "{[1.5,2),[5,)}", "{}"),
    values("integer[]", "{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[0:1]={7,8}"),
    values("text[]", '{"",NULL,"null","a,b","q\\"uote","back\\\\slash"}'),
    values("mood", "sad", "happy"),
    values("mood[]", "{sad,NULL}"),
    values("pair", "(1,word)", "(,)", '(-1,"with "" and ,")'),
    values("pair[]", '{"(1,a)","(2,)"}'),
    values("positive", "1"),
    values("span", "[0.5,1.5)", "empty"),
    values("oid", "0", "4294967295"),
    values("regclass", "item", "pg_catalog.pg_class"),
    values("regtype", "int4", "mood"),
    values("pg_lsn", "16/B374D848"),
    values("xml", "<a>1</a>"),
)

BINARIES = (
    in_binary("boolean", 16, b"\x01", b"\x00"),
    in_binary("smallint", 21, struct.pack("!h", -2)),
    in_binary("integer", 23, struct.pack("!i", -(2**31)), struct.pack("!i", 7)),
    in_binary("bigint", 20, struct.pack("!q", 2**63 - 1)),
    in_binary("double precision", 701, struct.pack("!d", 0.1), struct.pack("!d", float("inf"))),
    in_binary("numeric", 1700, struct.pack("!hhHhhh", 2, 0, 0x4000, 2, 1, 5000), struct.pack("!hhHh", 0, 0, 0xC000, 0)),
    in_binary("text", 25, "ünï☃".encode(), b"x"),
    in_binary("date", 1082, struct.pack("!i", 8825), struct.pack("!i", 2**31 - 1)),
    in_binary("timestamp with time zone", 1184, struct.pack("!q", 764_000_000_123_456)),
    in_binary("interval", 1186, struct.pack("!qii", -1, 2, 3)),
    in_binary("uuid", 2950, bytes(range(16))),
    in_binary("jsonb", 3802, b'\x01{"a": [1, null]}'),
    in_binary("integer[]", 1007, array_of(23, struct.pack("!i", 1), struct.pack("!i", 2))),
    in_binary("int4range", 3904, b"\x02" + struct.pack("!iiii", 4, 1, 4, 9)),
)

WIDE = ", ".join(f"{number} AS c{number}" for number in range(300))

SHAPES = (
    script(
        "bytea as a parameter is taken as it is, also in escape format",
        series(parse("SELECT $1::bytea", types=(17,)), bind(bytes(range(256)), formats=BINARY), execute()),
        "SET bytea_output TO escape",
        series(parse("SELECT $1::bytea", types=(17,)), bind(bytes(range(256)), formats=BINARY), execute()),
    ),
    script("a row of every type of number", in_both_formats("ROW(1::smallint, 2, 3::bigint, 4.5, 6.5::real, NULL)")),
    script(
        "a row of a table",
        "SELECT item FROM item ORDER BY number LIMIT 2",
        in_both_formats("(SELECT item FROM item LIMIT 1)"),
    ),
    script(
        "a table with its columns",
        "SELECT * FROM item ORDER BY number",
        "TABLE place",
        "SELECT number AS n, tableoid > 0 FROM item ORDER BY 1",
    ),
    script(
        "no columns", "SELECT", "SELECT FROM item", series(parse("SELECT"), describe_statement(), bind(), execute())
    ),
    script(
        "no rows",
        "SELECT 1 WHERE false",
        "SELECT * FROM held",
        series(parse("TABLE held"), bind(), describe_portal(), execute()),
    ),
    script("columns without and with the same names", 'SELECT 1, 2, 3 AS x, 4 AS x, 5 AS """", now() IS NULL'),
    script("three hundred columns", f"SELECT {WIDE}"),
    script("five hundred rows", "SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 500) AS n"),
    script("a value of a megabyte", "SELECT repeat('0123456789', 100000)", "SELECT 1"),
    script(
        "a parameter of a megabyte, both ways, in both formats",
        series(parse("SELECT $1::text"), bind("x☃" * 250_000), execute()),
        series(parse("SELECT $1::text"), bind("y" * 1_000_000, formats=BINARY, result_formats=BINARY), execute()),
    ),
    script("a text of 300,000 bytes", "SELECT /* " + "long " * 60_000 + " */ 'after it'"),
    script(
        "formats for each parameter and for each column",
        series(
            parse("SELECT $1::int, $2::text, $1::int + 1"),
            bind(struct.pack("!i", 41), "text", formats=(1, 0), result_formats=(1, 0, 1)),
            describe_portal(),
            execute(),
        ),
        series(parse("SELECT 1, 2"), bind(result_formats=(1, 0, 1)), execute()),
        series(parse("SELECT 1, 2"), bind(result_formats=(2,)), execute()),
        series(parse("SELECT $1::int"), bind("1", formats=(7,)), execute()),
    ),
    script(
        "a hundred parameters",
        series(
            parse("SELECT " + " + ".join(f"${number}::int" for number in range(1, 101))),
            describe_statement(),
            bind(*map(str, range(100))),
            execute(),
        ),
    ),
    script("a domain's check", "SELECT 0::positive", series(parse("SELECT $1::positive"), bind("-1"), execute())),
    script(
        "a type of its own",
        "BEGIN; CREATE TYPE colour AS ENUM ('red', 'blue'); SELECT 'red'::colour, ARRAY['blue']::colour[]; ROLLBACK",
    ),
)

VALUES = (*TEXTS, *BINARIES, *SHAPES)
