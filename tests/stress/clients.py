"""The clients of the stress: `python -m tests.stress.clients '{"port": 6432, ...}'` prints what they found, as JSON.

They run in a process of their own, so that the memory of the process they use is its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from spec.codec import encode, frontend
from tests.integration.wire import cancel_request, scram_proof, startup
from tests.stress.plans import CANCELED, LEAVING, Answer, Exchange, Plan, Row, Step, application_name

PATIENCE = 60.0
"""Seconds after which an answer counts as lost: far beyond what anything here takes."""
HEADER = struct.Struct("!cI")
SHORT = struct.Struct("!H")
INTEGER = struct.Struct("!i")
UNASKED = (b"N", b"S")
"""NoticeResponse and ParameterStatus may come at any time."""


@dataclass(frozen=True)
class Orders:
    """What the clients are to do."""

    host: str
    port: int
    user: str
    password: str
    database: str
    clients: int
    seconds: float
    seed: int
    transactions: bool


@dataclass
class Findings:
    """What they did, and everything that was not as it must be."""

    steps: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    logins: int = 0
    canceled: int = 0
    wrong: list[str] = field(default_factory=list)


class Wrong(Exception):
    """An answer that must not have come, or none."""


class Client:
    """One client: it follows its plan, over one connection after the other."""

    def __init__(self, orders: Orders, number: int, findings: Findings) -> None:
        self._orders = orders
        self._number = number
        self._findings = findings
        self._plan = Plan(orders.seed, number, transactions=orders.transactions)
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._key = (0, b"")
        self._error = ""

    async def run(self, deadline: float) -> None:
        """Follow the plan until the time is over, or until something is wrong."""
        done, step = 0, Step("login")
        try:
            await asyncio.wait_for(self._log_in(), PATIENCE)
            for step in self._plan.steps():
                await asyncio.wait_for(self._do(step), PATIENCE)
                self._findings.steps[step.name] += 1
                done += 1
                if time.monotonic() > deadline:
                    break
            self._writer.write(LEAVING["terminate"])
        except (Wrong, OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self._findings.wrong.append(f"client {self._number}, step {done}, {step.name}: {error!r}")
        finally:
            with contextlib.suppress(AttributeError, OSError):
                self._writer.close()
                await self._writer.wait_closed()

    async def _do(self, step: Step) -> None:
        if step.leave:
            self._writer.write(LEAVING[step.leave])
            await self._writer.drain()
            if step.leave != "terminate":
                self._writer.transport.abort()
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
            await self._log_in()
        for exchange in step.exchanges:
            self._writer.write(exchange.data)
            if step.cancel_after is None:
                await self._check(exchange)
            else:
                await asyncio.gather(self._check(exchange, may_be_canceled=True), self._cancel(step.cancel_after))

    async def _check(self, exchange: Exchange, *, may_be_canceled: bool = False) -> None:
        for expected in exchange.answers:
            found = await self._answer()
            if may_be_canceled and (found.sqlstate, found.rows) == (CANCELED, ()):
                self._findings.canceled += 1
            elif found != expected:
                raise Wrong(f"expected {expected}, found {found}{self._error if found.sqlstate else ''}")

    async def _cancel(self, delay: float) -> None:
        """Ask to cancel, and wait until the request has been dealt with."""
        await asyncio.sleep(delay)
        reader, writer = await asyncio.open_connection(self._orders.host, self._orders.port)
        writer.write(cancel_request(*self._key))
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    # -- messages ------------------------------------------------------------------------------------------------------

    async def _message(self) -> tuple[bytes, bytes]:
        kind, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
        self._findings.messages += 1
        return kind, await self._reader.readexactly(length - INTEGER.size)

    async def _answer(self) -> Answer:
        """Every message up to ReadyForQuery."""
        kinds, rows, sqlstate = b"", [], ""
        while True:
            kind, body = await self._message()
            if kind in UNASKED:
                continue
            kinds += kind
            if kind == b"D":
                rows.append(row(body))
            elif kind == b"d":
                rows.append((body.decode(),))
            elif kind == b"E":
                sqlstate, self._error = error_code(body), f" {body!r}"
                if sqlstate.startswith("57P"):
                    raise Wrong(f"the session was ended with {sqlstate}: {body!r}")
            elif kind == b"Z":
                return Answer((kinds + body).decode(), tuple(rows), sqlstate)

    async def _log_in(self) -> None:
        """Connect and prove who we are, up to the first ReadyForQuery."""
        orders = self._orders
        self._reader, self._writer = await asyncio.open_connection(orders.host, orders.port)
        name = application_name(self._number)
        self._writer.write(startup(orders.user, orders.database, application_name=name))
        first = b"n=,r=" + base64.b64encode(os.urandom(18))
        while True:
            kind, body = await self._message()
            request = INTEGER.unpack(body[:4])[0] if kind == b"R" else 0
            if request == 10:
                initial = frontend("SASLInitialResponse", mechanism=b"SCRAM-SHA-256", data=b"n,," + first)
                self._writer.write(encode(initial))
            elif request == 11:
                proof = scram_proof(orders.password, first, body[4:])
                self._writer.write(encode(frontend("SASLResponse", data=proof)))
            elif kind == b"K":
                self._key = (INTEGER.unpack(body[:4])[0], body[4:])
            elif kind == b"E":
                raise Wrong(f"the login was refused: {body!r}")
            elif kind == b"Z":
                self._findings.logins += 1
                return


def row(body: bytes) -> Row:
    """The values of a DataRow."""
    values: list[str | None] = []
    position = SHORT.size
    for _ in range(SHORT.unpack_from(body)[0]):
        (length,) = INTEGER.unpack_from(body, position)
        position += INTEGER.size
        values.append(None if length < 0 else body[position : position + length].decode())
        position += max(length, 0)
    return tuple(values)


def error_code(body: bytes) -> str:
    """The SQLSTATE of an ErrorResponse."""
    return next(part[1:].decode() for part in body.split(b"\0") if part[:1] == b"C")


async def stress(orders: Orders) -> Findings:
    """Let all clients work at the same time."""
    findings = Findings()
    deadline = time.monotonic() + orders.seconds
    async with asyncio.TaskGroup() as group:
        for number in range(orders.clients):
            group.create_task(Client(orders, number, findings).run(deadline))
    return findings


def main() -> None:
    orders: dict[str, Any] = json.loads(sys.argv[1])
    print(json.dumps(vars(asyncio.run(stress(Orders(**orders))))))


if __name__ == "__main__":
    main()
