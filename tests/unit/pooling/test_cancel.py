"""Cancel requests: what they reach, what they do not, and when the server connection may be used again."""

from __future__ import annotations

import pytest

from pgpooler.pooling.cancel import CANCEL_KEY_3_2, Cancels
from pgpooler.pooling.cleaning import CANCEL_AGAIN
from pgpooler.protocol import codes, messages
from tests.memory import MemoryPort
from tests.scripted import Client, Recording, Setting, query


def cancel(setting: Setting, client: Client, key: bytes | None = None) -> tuple[MemoryPort, Recording]:
    """Send a cancel request as libpq does: over a connection of its own."""
    port = setting.world.accept()
    recording = Recording(port)
    port.say(messages.cancel_request(client.process_id, client.cancel_key if key is None else key))
    setting.world.settle()
    return port, recording


def slow(setting: Setting) -> Client:
    client = setting.client()
    client.ask(f"slow {client.token}")
    setting.world.settle()
    return client


def test_a_cancel_request_reaches_the_server_of_its_client() -> None:
    """W12: the key is the client's own, and it reaches what that client runs."""
    setting = Setting(pool_size=2)
    other, client = setting.client(), slow(setting)
    port, recording = cancel(setting, client)
    assert client.sqlstates == ["57014"]
    assert [process.number for process in setting.cluster.canceled] == [client.process_id]
    assert other.errors == []
    assert port.closed
    assert recording.data == b"", "a cancel request is never answered"


def test_the_key_is_not_the_servers_own() -> None:
    setting = Setting()
    client = setting.client()
    (server,) = setting.world.pool.busy
    assert client.process_id == server.process_id
    assert client.cancel_key != server.cancel_key
    assert len(client.cancel_key) == codes.CANCEL_KEY_3_0


def test_a_client_of_protocol_3_2_gets_a_long_key() -> None:
    setting = Setting()
    client = Client(setting.world, "x", version=codes.PROTOCOL_3_2)
    setting.world.settle()
    assert len(client.cancel_key) == CANCEL_KEY_3_2
    client.ask("slow x")
    setting.world.settle()
    cancel(setting, client)
    assert client.sqlstates == ["57014"]


def test_a_wrong_key_reaches_nobody() -> None:
    setting = Setting()
    client = slow(setting)
    for key in (b"no!!", b"", client.cancel_key + b"x", client.cancel_key[:3], bytes(300)):
        cancel(setting, client, key)
    assert setting.cluster.canceled == []
    assert client.errors == []
    assert len(setting.world.service.clients) == 1


def test_a_cancel_request_for_a_client_that_runs_nothing_reaches_nobody() -> None:
    setting = Setting()
    client = setting.client()
    cancel(setting, client)
    assert setting.cluster.canceled == []


def test_a_cancel_request_for_a_client_that_is_gone_does_not_hit_the_next_one() -> None:
    """W12: the same server connection serves somebody else now."""
    setting = Setting()
    first = setting.client()
    setting.leave(first)
    second = slow(setting)
    assert second.process_id == first.process_id
    cancel(setting, first)
    assert setting.cluster.canceled == []
    assert second.errors == []
    assert len(setting.world.service.cancels) == 1


def test_a_connection_is_not_handed_on_before_its_cancel_is_settled() -> None:
    setting = Setting()
    client = slow(setting)
    waiter = setting.client()
    setting.world.hold_cancels = True
    port, _ = cancel(setting, client)
    setting.cluster.processes[0].release()
    client.terminate()
    setting.world.settle()
    assert not waiter.logged_in
    assert not port.closed
    setting.world.hold_cancels = False
    setting.world.settle()
    assert waiter.process_id == client.process_id
    assert waiter.errors == []
    assert port.closed


def test_a_cancel_that_ends_in_an_unknown_way_closes_the_connection_at_release() -> None:
    setting = Setting()
    client = slow(setting)
    waiter = setting.client()
    setting.world.hold_cancels = True
    cancel(setting, client)
    setting.world.answer_cancel(orderly=False)
    setting.world.settle()
    client.ask(f"row {client.token}")
    setting.world.settle()
    assert client.rows == [client.token], "who holds it may go on"
    setting.leave(client)
    assert waiter.process_id == 2
    assert setting.cluster.processes[0].over


def test_a_cancel_that_ends_in_an_unknown_way_after_the_release_closes_the_connection() -> None:
    setting = Setting()
    client = slow(setting)
    waiter = setting.client()
    setting.world.hold_cancels = True
    cancel(setting, client)
    setting.cluster.processes[0].release()
    client.terminate()
    setting.world.settle()
    setting.world.answer_cancel(orderly=False)
    setting.world.settle()
    assert waiter.process_id == 2


def test_two_cancels_at_once_must_both_be_settled() -> None:
    setting = Setting()
    client = slow(setting)
    waiter = setting.client()
    setting.world.hold_cancels = True
    cancel(setting, client)
    cancel(setting, client)
    setting.cluster.processes[0].release()
    client.terminate()
    setting.world.settle()
    setting.world.answer_cancel()
    setting.world.settle()
    assert not waiter.logged_in
    setting.world.answer_cancel()
    setting.world.settle()
    assert waiter.logged_in


def test_a_storm_of_cancels_leaves_everything_as_it_was() -> None:
    setting = Setting()
    client = slow(setting)
    for _ in range(200):
        Recording(port := setting.world.accept())
        port.say(messages.cancel_request(client.process_id, client.cancel_key))
    setting.world.settle()
    assert client.sqlstates == ["57014"]
    client.ask(f"row {client.token}")
    setting.world.settle()
    assert client.rows == [client.token]
    assert len(setting.world.service.clients) == 1
    setting.leave(client)
    assert setting.sizes == (1, 0, 0, 0)


def test_a_cancel_request_works_with_max_client_conn_reached() -> None:
    setting = Setting(max_client_conn=1)
    client = slow(setting)
    cancel(setting, client)
    assert client.sqlstates == ["57014"]


def test_a_cancel_request_for_a_server_that_dies_meanwhile_does_no_harm() -> None:
    setting = Setting()
    client = slow(setting)
    setting.world.hold_cancels = True
    port, _ = cancel(setting, client)
    setting.cluster.processes[0].crash()
    setting.world.settle()
    setting.world.hold_cancels = False
    setting.world.settle()
    assert client.over
    assert port.closed
    assert setting.world.counts()["used"] == 0


def test_the_carrier_of_a_cancel_request_may_leave_before_it_is_settled() -> None:
    setting = Setting()
    client = slow(setting)
    setting.world.hold_cancels = True
    port, _ = cancel(setting, client)
    port.leave()
    setting.world.settle()
    setting.world.hold_cancels = False
    setting.world.settle()
    assert client.sqlstates == ["57014"]
    assert len(setting.world.service.clients) == 1


def test_what_follows_a_cancel_request_is_ignored() -> None:
    setting = Setting()
    client = slow(setting)
    setting.world.hold_cancels = True
    port, recording = cancel(setting, client)
    port.say(query("row x"))
    setting.world.settle()
    assert recording.data == b""


def test_keys_are_unique_and_forgotten() -> None:
    cancels = Cancels()
    session = object()
    keys = {cancels.mint(session, 7, codes.PROTOCOL_3_0) for _ in range(100)}  # type: ignore[arg-type]
    assert len(keys) == len(cancels) == 100
    for key in keys:
        assert cancels.find(7, key) is session
        assert cancels.find(8, key) is None
        cancels.forget(7, key)
        cancels.forget(7, key)
    assert len(cancels) == 0


def test_a_cancel_request_that_came_before_its_query_is_repeated() -> None:
    setting = Setting()
    client = slow(setting)
    setting.world.on_cancel = lambda server: None
    client.leave()
    setting.world.settle()
    assert setting.sizes == (0, 1, 0, 0), "the query runs for nobody"
    setting.cluster.attach(setting.world)
    setting.world.pass_time(CANCEL_AGAIN)
    assert setting.sizes == (1, 0, 0, 0)
    assert len(setting.cluster.canceled) == 1


@pytest.mark.parametrize("orderly", [False, True])
def test_a_server_that_died_while_it_was_being_canceled_is_not_canceled_again(orderly: bool) -> None:
    """Its process id may belong to somebody else by then."""
    setting = Setting()
    client = slow(setting)
    setting.world.hold_cancels = True
    client.leave()
    setting.world.settle()
    assert len(setting.world.cancels) == 1
    setting.cluster.processes[0].crash()
    setting.world.settle()
    setting.world.answer_cancel(orderly=orderly)
    setting.world.pass_time(10)
    assert setting.world.cancels == []
    assert setting.world.deadlines.next() == 0.0
