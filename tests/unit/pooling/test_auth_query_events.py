"""Whatever happens around lookups, in whatever order: nobody gets in who may not, and every login comes to an end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import AuthMethod, PoolMode
from pgpooler.pooling.states import ClientState
from tests.roles import PASSWORD, WRONG, RolesSetting, looking_up, verifier
from tests.scripted import Client

USERS = ("alice", "bobby", "carol")
EVENTS = (
    *("log in", "log in", "log in", "log in", "let some time pass", "a client leaves"),
    *("the server is slow", "the server answers", "the servers crash", "the servers end", "the server is away"),
    *("the server is back", "the network is slow", "the network answers", "a question is lost"),
    *("reload", "reload with another query", "pause", "resume", "a role goes", "a role comes", "a new password"),
)
MAY_BE_TOLD = {"28P01", "08006"}


class Course:
    """One course of events.  `may` says of each client whether what it knows was ever right while it logged in."""

    def __init__(self, method: AuthMethod, cache: float) -> None:
        self.keys = {"method": method, "pool_mode": PoolMode.TRANSACTION, "pool_size": 2}
        self.auth = {"auth_query_cache_ttl": cache, "auth_query_negative_ttl": cache}
        self.setting = RolesSetting(auth=self.auth, **self.keys)
        self.cluster = self.setting.cluster
        self.cluster.roles["bobby"] = verifier()
        self.clients: list[tuple[Client, bool]] = []
        self.passwords = 0

    def happens(self, event: str, draw) -> None:
        world, cluster = self.setting.world, self.cluster
        user = draw(st.sampled_from(USERS))
        if event == "log in":
            password = draw(st.sampled_from((PASSWORD, WRONG)))
            self.clients.append((Client(world, user=user, password=password.encode()), password == WRONG))
        elif event == "let some time pass":
            world.pass_time(draw(st.sampled_from((0.05, 1.0, 6.0, 61.0))))
        elif event == "a client leaves" and self.clients:
            draw(st.sampled_from(self.clients))[0].leave()
        elif event == "the server is slow":
            cluster.slow = True
        elif event == "the server answers":
            cluster.release()
        elif event in ("the servers crash", "the servers end"):
            for process in cluster.alive:
                process.crash() if event == "the servers crash" else process.terminate()
        elif event == "the server is away":
            world.unreachable["primary"] = "connection refused"
        elif event == "the server is back":
            world.unreachable.clear()
        elif event in ("the network is slow", "the network answers"):
            world.hold_opens = event == "the network is slow"
        elif event == "a question is lost":
            cluster.gone = 1
        elif event in ("reload", "reload with another query"):
            auth = {**self.auth, "auth_query": "SELECT a, b FROM c.d($1)"} if event != "reload" else self.auth
            world.reload(looking_up(auth=auth, **self.keys))
        elif event == "pause":
            world.service.pools.pause(world.now)
        elif event == "resume":
            world.service.pools.resume(world.now)
        elif event == "a role goes":
            cluster.roles.pop(user, None)
        elif event == "a role comes":
            cluster.roles[user] = verifier()
        elif event == "a new password":
            self.passwords += 1
            cluster.roles[user] = verifier(f"changed {self.passwords}", salt=b"salt %d" % self.passwords)

    def check(self) -> None:
        self.setting.world.settle()
        self.setting.world.check_limits()

    def end(self) -> None:
        """Everything is well again; all logins come to their end."""
        world = self.setting.world
        world.unreachable.clear()
        world.hold_opens = False
        self.cluster.gone = 0
        self.cluster.release()
        world.service.pools.resume(world.now)
        world.pass_time(120)
        for client, wrong in self.clients:
            assert not (wrong and client.logged_in)
            assert client.over or client.logged_in, client.session
            assert set(client.sqlstates) <= MAY_BE_TOLD | {"57P01"}
        for client, _ in self.clients:
            client.leave()
        world.settle()
        counts = world.counts()
        del counts["used"], counts["in pools"]  # server connections may stay
        assert set(counts.values()) == {0}
        assert all(client.session.state == ClientState.CLOSED for client, _ in self.clients)


@given(
    data=st.data(),
    method=st.sampled_from((AuthMethod.SCRAM_SHA_256, AuthMethod.MD5, AuthMethod.PLAIN)),
    cache=st.sampled_from((0.0, 5.0)),
    events=st.lists(st.sampled_from(EVENTS), max_size=25),
)
def test_nobody_gets_in_with_a_wrong_password_and_every_login_ends(
    data: st.DataObject, method: AuthMethod, cache: float, events: list[str]
) -> None:
    course = Course(method, cache)
    for event in events:
        course.happens(event, data.draw)
        if data.draw(st.booleans()):
            course.check()
    course.end()
