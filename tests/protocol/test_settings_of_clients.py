"""The settings of clients in memory: in force wherever a client is served, whatever becomes of the connection before.

What PostgreSQL makes of the statements that are sent for it is tried in tests/integration.
"""

from __future__ import annotations

import pytest

from pgpooler.config.choices import PoolMode
from pgpooler.pooling.states import ClientState
from tests.protocol.test_transaction_mode import Transactions, idle
from tests.scripted import Client, frame, query

ASKS = "SELECT pg_catalog.lower(name)"


class Settings(Transactions):
    """A world in which servers report their DateStyle."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"server_reset_query": "never", "pool_size": 2, **settings})
        self.cluster.reported = {"datestyle": ("DateStyle", "ISO")}

    def plain(self, **parameters: str) -> Client:
        client = Client(self.world, "", parameters=parameters)
        self.world.settle()
        return client

    def datestyle_of(self, client: Client) -> str | None:
        """The setting on the connection on which the client is served next."""
        self.say(client, query("BEGIN"))
        value = self.cluster.process_of(client.session.server).settings.get("datestyle")  # type: ignore[union-attr]
        self.say(client, query("COMMIT"))
        return value


@pytest.mark.parametrize("mode", [PoolMode.SESSION, PoolMode.TRANSACTION, PoolMode.STATEMENT])
@pytest.mark.parametrize("policy", ["always", "smart", "never"])
def test_a_reset_goes_back_to_what_the_client_asked_for_at_its_start(mode: PoolMode, policy: str) -> None:
    """The client hears of it when it is in force, and nothing of the server's own value."""
    setting = Settings(pool_mode=mode, server_reset_query=policy)
    client = setting.plain(datestyle="German")
    setting.say(client, query("RESET ALL"))
    assert client.kinds == "CZ"
    place = setting.process.statements.index("RESET ALL")
    assert "(E'datestyle', E'German')" in setting.process.statements[place + 1]
    assert mode is PoolMode.SESSION or idle(client)


def test_who_asked_for_nothing_at_its_start_is_told_what_a_reset_goes_back_to() -> None:
    setting = Settings()
    client = setting.plain()
    setting.process.settings["datestyle"] = "German"
    setting.say(client, query("SET x TO 'c'"))
    setting.say(client, query("RESET ALL"))
    assert client.kinds == "CSZCSZ"
    assert setting.process.statements[-1].startswith(ASKS)


def test_a_reset_in_a_pipeline_is_made_good_at_its_end() -> None:
    setting = Settings()
    client = setting.plain(datestyle="German")
    setting.say(client, query("RESET ALL") + query("SELECT 'c'"))
    assert client.kinds == "CSZTDCSZ"
    assert setting.process.settings["datestyle"] == "German"


def test_what_a_function_has_reset_is_in_force_again_in_the_next_lease() -> None:
    """All that says so is what the server reports."""
    setting = Settings()
    client = setting.plain(datestyle="German")
    setting.say(client, query("BEGIN"))
    del setting.process.settings["datestyle"]
    setting.say(client, query("COMMIT"))
    assert setting.process.statements[-1].startswith(ASKS)
    assert idle(client)
    assert setting.datestyle_of(client) == "German"


def test_nobody_gets_what_a_client_set_that_vanished_before_the_server_was_asked() -> None:
    setting = Settings(pool_size=1)
    client, other = setting.plain(), setting.plain()
    setting.say(client, query("BEGIN") + query("SET x TO 'c'"))
    client.break_off()
    setting.say(other, query("show c"))
    assert other.rows == [""]
    assert "RESET ALL" in setting.process.statements[-2]


@pytest.mark.parametrize("policy", ["always", "smart", "never"])
def test_settings_are_in_force_on_a_connection_that_was_cleaned_in_between(policy: str) -> None:
    setting = Settings(pool_size=1, server_reset_query=policy)
    client = setting.plain(datestyle="German")
    for _ in range(2):
        assert setting.datestyle_of(client) == "German"
        setting.say(client, query("row c"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SET my.own TO 'c'", "my.own"),
        ("SET my . Own = 'c'", "my.own"),
        ("SELECT set_config('my.own', 'c', false)", "my.own"),
        ("RESET my.own", "my.own"),
        ('SET "My".own TO 1; SET a.b.c TO 1', "a.b.c"),
    ],
)
def test_a_setting_with_a_dot_is_asked_for_by_its_name(text: str, name: str) -> None:
    """No view of PostgreSQL shows it."""
    setting = Settings(pool_size=1)
    client = setting.plain()
    setting.say(client, query(text))
    assert setting.process.statements[-1].startswith(ASKS)
    assert f"(E'{name}')" in setting.process.statements[-1]


def test_who_logs_in_is_told_what_servers_say_now() -> None:
    """The server has reported another value while it served nobody, as after a reload of its configuration."""
    setting = Settings()
    one = setting.plain()
    setting.say(one, query("SELECT 'c'"))
    setting.process.say(frame("S", b"TimeZone\0Asia/Tokyo\0"))
    setting.world.settle()
    other = setting.plain()
    assert [body for kind, body in other.received if kind == "S" and b"TimeZone" in body] == [b"TimeZone\0Asia/Tokyo\0"]


def test_a_server_that_does_not_say_what_is_set_keeps_its_client_and_is_asked_again() -> None:
    setting = Settings()
    client = setting.plain()
    setting.cluster.questions_fail = True
    setting.say(client, query("SET x TO 'c'"))
    assert client.session.state == ClientState.ACTIVE  # type: ignore[union-attr]
    setting.cluster.questions_fail = False
    setting.say(client, query("SELECT 'c'"))
    assert idle(client)
    other = setting.plain()
    setting.say(other, query("BEGIN"))
    setting.say(client, query("show c"))
    assert client.rows == ["c", "c"]
