"""What the help of `python -m spec` says."""

from __future__ import annotations

from typing import Final

EXIT_STATUSES: Final = """\
exit status:
  0  everything conforms
  1  something deviates
  2  could not run: wrong usage, a file that is no trace, nothing to judge
"""

OVERVIEW: Final = """\
The PostgreSQL wire protocol, executable: judge what any client, server or
connection pooler says, by the rules of PostgreSQL's manual.

Watch live traffic:       python -m spec record --listen 127.0.0.1:7000 --target 127.0.0.1:5432
Judge what was recorded:  python -m spec judge traffic.trace
"""

TABLES: Final = """\
Print every message with its fields, what each request is answered with, and
the rules, as Markdown with links to PostgreSQL's manual.

examples:
  python -m spec tables
  python -m spec tables > docs/reference/protocol.md
"""

EXPORT: Final = """\
Print the same for programs, as one JSON object: the formats of the messages,
conversations as expression trees, the rules.  spec/export.py documents its
shape.

examples:
  python -m spec export > protocol.json
  python -m spec export | jq '.replies.DescribePortal'
"""

JUDGE: Final = f"""\
Judge a recording, connection by connection.  Prints every violation with the
line of the trace at which it became certain, the rule and the section of the
manual that was broken, and what would have been legal; then a table with the
verdict on each connection.

A trace has one JSON object a line; `record` writes it, spec/trace.py documents
it, and it is easily made from any other capture.

examples:
  python -m spec judge traffic.trace
  gunzip < traffic.trace.gz | python -m spec judge -

{EXIT_STATUSES}"""

RECORD: Final = f"""\
Stand between clients and a server (or a pooler) and pass every byte on
untouched.  Prints violations as they happen and, at the end, a table with the
verdict on each connection.  Ends on Ctrl-C, or after --connections.

Encrypted connections are passed on too, but nothing in them can be judged:
use sslmode=disable.  A trace holds everything that was said, passwords and
data included; keep it as you would keep those.

examples:
  python -m spec record --listen 127.0.0.1:7000 --target 127.0.0.1:5432
  psql 'host=127.0.0.1 port=7000 sslmode=disable'       # meanwhile, elsewhere

  python -m spec record --listen 127.0.0.1:7000 --target 127.0.0.1:6432 \\
      --trace traffic.trace --connections 1

To judge both sides of a pooler, run two: one in front of it, and one between
it and its server.

{EXIT_STATUSES}"""

CONFORMANCE: Final = f"""\
Hold a server or a pooler against the rules, theme by theme, with scripts of
its own making.

examples:
  python -m spec conformance --help

{EXIT_STATUSES}"""
