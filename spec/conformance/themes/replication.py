"""Connections that ask for the replication protocol; only what needs no stream of WAL."""

from __future__ import annotations

from spec.conformance.requests import query
from spec.conformance.scripts import READY, Open, Script, Theme, ask, error, rows

REPLICATION = "protocol-replication"
NEEDS = ("replication",)

THEME = Theme(
    "replication",
    "connections that ask for the replication protocol",
    (
        Script(
            "a replication connection says which system it is",
            REPLICATION,
            (
                Open(parameters=(("replication", "database"),)),
                ask(
                    query("IDENTIFY_SYSTEM"),
                    answer=("RowDescription", "DataRow", "CommandComplete IDENTIFY_SYSTEM", READY),
                ),
            ),
            needs=NEEDS,
            is_own=True,
        ),
        Script(
            "a replication connection to a database runs queries too",
            REPLICATION,
            (Open(parameters=(("replication", "database"),)), ask(query("SELECT 1"), answer=(*rows("1"), READY))),
            needs=NEEDS,
        ),
        Script(
            "a replication connection refuses what it does not know",
            REPLICATION,
            (
                Open(parameters=(("replication", "true"),)),
                ask(query("SELECT 1"), answer=(error("0A000", "42601"), READY)),
            ),
            needs=NEEDS,
        ),
    ),
)
