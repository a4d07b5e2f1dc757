"""Hears everything a pooler reads and writes in a `World`, on both sides, and lets `spec.pooling` judge it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.pooling.client import ClientSession
from pgpooler.pooling.lease import Lease
from pgpooler.pooling.server import ServerSession
from pgpooler.pooling.service import Service
from pgpooler.pooling.states import ClientState, ServerState
from spec.codec import Malformed
from spec.events import Canceled, Event, Gone, Leased, Released, Said, Side
from spec.listener import Listener
from spec.messages import Sender
from spec.pooling import PoolingJudge
from spec.session import Violation
from tests.memory import MemoryPort, World

if TYPE_CHECKING:
    import pytest


class Tap:
    """Hears one port: what its session is given, and what its session writes."""

    def __init__(self, sides: TwoSides, port: MemoryPort, side: Side, number: int) -> None:
        self.sides = sides
        self.port = port
        self.side = side
        self.number = number
        self.listener = Listener()
        self.deaf = False  # a peer said what is no message: nothing after it can be read

    def hear(self, sender: Sender, data: bytes) -> None:
        if self.deaf:
            return
        try:
            for heard in self.listener.listen(sender, data):
                self.sides.note(Said(self.side, self.number, heard.instance, heard.data))
        except Malformed:
            assert (sender is Sender.FRONTEND) is (self.side is Side.CLIENT), "the pooler said what is no message"
            self.deaf = True
            self.sides.note(Gone(self.side, self.number))


class TwoSides:
    """All connections of a world, from now on."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.judge = PoolingJudge()
        self.violations: list[tuple[Event, Violation]] = []
        self.events: list[Event] = []
        self.taps: dict[MemoryPort, Tap] = {}
        self.holders: dict[int, ClientSession] = {}  # server -> the client that holds it
        self.wanted = 0  # the client whose cancel key was looked up last
        self._patch_ports(patch)
        self._patch_leases(patch)
        self._patch_cancels(patch)

    def note(self, event: Event) -> None:
        self.events.append(event)
        self.violations += [(event, violation) for violation in self.judge.hear(event)]

    def history(self, last: Event) -> list[str]:
        """What happened on the connection of an event, up to it: `>` to the pooler's peer, `<` from it."""
        lines = []
        until = next(number for number, event in enumerate(self.events, 1) if event is last)
        for event in self.events[:until]:
            if isinstance(event, Said) and isinstance(last, Said):
                if (event.side, event.connection) == (last.side, last.connection):
                    towards_peer = (event.instance.sender is Sender.BACKEND) is (event.side is Side.CLIENT)
                    lines.append(("> " if towards_peer else "< ") + f"{event.instance.name} {event.data[5:]!r}")
            elif not isinstance(event, Said):
                lines.append(str(event))
        return lines

    def gone(self, port: MemoryPort) -> None:
        """The pooler will say nothing more there."""
        tap = self.taps.pop(port, None)
        if tap is not None:
            self.note(Gone(tap.side, tap.number))

    def tap(self, port: MemoryPort) -> Tap | None:
        """The tap of a port of this world, made when its session is known."""
        if port.world is not self.world:
            return None
        tap = self.taps.get(port)
        session = port.session
        if tap is None and isinstance(session, ClientSession):
            tap = self.taps[port] = Tap(self, port, Side.CLIENT, session.number)
        elif tap is None and isinstance(session, ServerSession):
            tap = self.taps[port] = Tap(self, port, Side.SERVER, session.number)
        return tap

    # -- where it listens ----------------------------------------------------------------------------------------------

    def _patch_ports(self, patch: pytest.MonkeyPatch) -> None:
        write, close, finish = MemoryPort.write, MemoryPort.close, MemoryPort.finish
        receive = {ClientSession: ClientSession.receive, ServerSession: ServerSession.receive}
        sides = self

        def tapped_write(port: MemoryPort, buffer: bytearray | bytes, start: int, stop: int) -> bool:
            tap = sides.tap(port)
            if tap is not None and not port.closed:
                tap.hear(Sender.BACKEND if tap.side is Side.CLIENT else Sender.FRONTEND, bytes(buffer[start:stop]))
            return write(port, buffer, start, stop)

        def tapped_close(port: MemoryPort) -> None:
            close(port)
            sides.gone(port)

        def tapped_finish(port: MemoryPort) -> None:
            finish(port)
            sides.gone(port)

        def tapped_receive(session: object, buffer: bytearray, start: int, stop: int, now: float) -> None:
            tap = sides.tap(session.port)  # type: ignore[attr-defined]
            if tap is not None:
                tap.hear(Sender.FRONTEND if tap.side is Side.CLIENT else Sender.BACKEND, bytes(buffer[start:stop]))
            receive[type(session)](session, buffer, start, stop, now)  # type: ignore[index]

        patch.setattr(MemoryPort, "write", tapped_write)
        patch.setattr(MemoryPort, "close", tapped_close)
        patch.setattr(MemoryPort, "finish", tapped_finish)
        patch.setattr(ClientSession, "receive", tapped_receive)
        patch.setattr(ServerSession, "receive", tapped_receive)

    def _patch_leases(self, patch: pytest.MonkeyPatch) -> None:
        begin, end = Lease.begin, Lease.end
        sides = self

        def noted_begin(lease: Lease, client: ClientSession) -> None:
            server = lease._server
            if server.service is sides.world.service:
                sides.holders[server.number] = client
                sides.note(Leased(client.number, server.number))
            begin(lease, client)

        def noted_end(lease: Lease) -> None:
            server = lease._server
            if server.service is sides.world.service and server.number in sides.holders:
                client = sides.holders.pop(server.number)
                lost = server.state == ServerState.CLOSED or client.state == ClientState.CLOSED
                sides.note(Released(client.number, server.number, lost))
            end(lease)

        patch.setattr(Lease, "begin", noted_begin)
        patch.setattr(Lease, "end", noted_end)

    def _patch_cancels(self, patch: pytest.MonkeyPatch) -> None:
        service, cancel, request = self.world.service, self.world.cancel, Service.cancel
        find = service.cancels.find
        sides = self

        def noted_find(process_id: int, cancel_key: bytes) -> ClientSession | None:
            found = find(process_id, cancel_key)
            sides.wanted = found.number if found is not None else 0
            return found

        def noted_cancel(server: ServerSession, settled: object) -> None:
            if server.client is not None and sides.wanted:
                sides.note(Canceled(sides.wanted, server.number))
            cancel(server, settled)  # type: ignore[arg-type]

        def noted_request(service: Service, *arguments: object) -> None:
            sides.wanted = 0
            request(service, *arguments)  # type: ignore[arg-type]
            sides.wanted = 0  # what is canceled later has another reason

        self.world.service.cancels = _Cancels(service.cancels, noted_find)  # type: ignore[assignment]
        patch.setattr(self.world, "cancel", noted_cancel)
        patch.setattr(Service, "cancel", noted_request)


class _Cancels:
    """The cancel keys of a service, with a look at who is found."""

    def __init__(self, cancels: object, find: object) -> None:
        self._cancels = cancels
        self.find = find

    def __getattr__(self, name: str) -> object:
        return getattr(self._cancels, name)

    def __len__(self) -> int:
        return len(self._cancels)  # type: ignore[arg-type]
