"""A port with TLS: what its session sees is what it sees of a plain one; and how hands are shaken."""

from __future__ import annotations

import contextlib
import hmac
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import TlsVersion
from pgpooler.config.model import ClientTls
from pgpooler.config.tls_files import ClientContext, client_context
from pgpooler.net.port import LINGER
from pgpooler.net.tls import ANSWERS_LIMIT, TlsPort
from pgpooler.net.tunnel import client_certificate
from pgpooler.pooling.port import ClientCertificate
from tests.certificates import Authority, Certificate
from tests.unit.net.fakes import Bench, Listening, reset


class Pausing(Listening):
    """A session that has enough after every piece."""

    def receive(self, buffer: bytearray, start: int, stop: int, now: float) -> None:
        super().receive(buffer, start, stop, now)
        self.port.pause()


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
each_version = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


@cache
def authority() -> Authority:
    return Authority(Path(mkdtemp(prefix="pgpooler-test-")))


@cache
def of_server() -> Certificate:
    return authority().certify("server")


@cache
def ours(**keys: object) -> ClientContext:
    return client_context(ClientTls(**of_server().keys, ca=str(authority().file), **keys))  # type: ignore[arg-type]


def theirs(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority().file)
    context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


class Peer:
    """The client's end: what it sends and receives within TLS, in pieces as large as it is told."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.records = bytearray()  # made, and not taken by the socket yet
        self.received = bytearray()
        self.shaken = False
        self.end = ""

    def send(self, data: bytes) -> None:
        self.tls.write(data)

    def leave(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()

    def step(self, size: int = 1 << 16) -> None:
        """Send and receive what is there, at most so many bytes each."""
        self.records += self.outgoing.read()
        with contextlib.suppress(BlockingIOError):
            while self.records:
                del self.records[: self.socket.send(self.records[:size])]
        try:
            if data := self.socket.recv(size):
                self.incoming.write(data)
            else:
                self.end = self.end or "truncated"
        except BlockingIOError:
            pass
        except ConnectionError:
            self.end = self.end or "reset"
        self._hear()

    def _hear(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
            while not self.end.startswith("close"):
                data = self.tls.read(1 << 16)
                self.received += data
                if not data:
                    self.end = "close_notify"
        self.records += self.outgoing.read()


class TlsBench(Bench):
    """A relay that offers TLS."""

    def __init__(self) -> None:
        super().__init__()
        self.relay.tls = ours()

    def encrypted(
        self, context: ssl.SSLContext | None = None, *, small: bool = False
    ) -> tuple[TlsPort, Listening, Peer]:
        """A connection on which TLS is about to begin."""
        plain, session, connection = self.pair(small=small)
        port = plain.encrypt(b"")
        assert isinstance(port, TlsPort)
        session.port = port
        return port, session, Peer(connection, context or theirs())

    def run(self, *peers: Peer, size: int = 1 << 16) -> None:
        """One turn of the event loop, and one step of each peer."""
        for peer in peers:
            peer.step(size)
        self.turn(0)
        self.loop.pass_time(0)

    def until_done(self, condition: Callable[[], object], *peers: Peer, size: int = 1 << 16) -> None:
        for _ in range(100_000):
            if condition():
                return
            self.run(*peers, size=size)
        raise AssertionError("nothing comes of it")

    def shaken(self, context: ssl.SSLContext | None = None, *, small: bool = False) -> tuple[TlsPort, Listening, Peer]:
        port, session, peer = self.encrypted(context, small=small)
        self.until_done(lambda: peer.shaken and port.encryption, peer)
        return port, session, peer


@pytest.fixture
def bench() -> Iterator[TlsBench]:
    made = TlsBench()
    yield made
    made.close()
    assert not made.reports


# -- bytes -------------------------------------------------------------------------------------------------------------


@each_version
def test_what_was_agreed_on_is_known(bench: TlsBench, version: ssl.TLSVersion) -> None:
    port, _, peer = bench.shaken(theirs(version))
    assert port.encryption is not None
    assert port.encryption.protocol == peer.tls.version() == {"TLSv1_2": "TLSv1.2"}.get(version.name, "TLSv1.3")
    assert port.encryption.cipher == peer.tls.cipher()[0]  # type: ignore[index]
    assert port.encryption.end_point == ours().end_point != b""
    assert port.encryption.certificate is None


PIECES = st.lists(st.integers(0, 70_000), max_size=8)


@given(PIECES, PIECES, st.integers(1, 50_000), st.sampled_from(VERSIONS), st.booleans(), st.data())
def test_plain_bytes_in_are_plain_bytes_out_in_both_directions(
    to_us: list[int], to_them: list[int], size: int, version: ssl.TLSVersion, small: bool, data: st.DataObject
) -> None:
    bench = TlsBench()
    try:
        port, session, peer = bench.shaken(theirs(version), small=small)
        said, heard = bytearray(), bytearray()
        for number in range(max(len(to_us), len(to_them))):
            for sizes, sent, write in ((to_us, heard, peer.send), (to_them, said, port.write_all)):
                piece = bytes((number + 1,)) * sizes[number] if number < len(sizes) else b""
                if piece:
                    sent += piece
                    write(piece)
            action = data.draw(st.sampled_from(["pause", "resume", "run", "run"]))
            {"pause": port.pause, "resume": port.resume, "run": lambda: bench.run(peer, size=size)}[action]()
        port.resume()
        bench.until_done(lambda: len(session.received) == len(heard) and len(peer.received) == len(said), peer)
        assert session.received == heard
        assert peer.received == said
        assert not port.queue
        assert not bench.reports
    finally:
        bench.close()


def test_what_the_peer_does_not_take_is_queued_and_reported_when_it_is_out(bench: TlsBench) -> None:
    port, session, peer = bench.shaken(small=True)
    data = bytes(range(256)) * 8000
    assert not port.write(data, 0, len(data))
    assert port.queue
    bench.until_done(lambda: session.drains, peer)
    bench.until_done(lambda: len(peer.received) == len(data), peer)
    assert peer.received == data
    assert session.drains == 1


def test_a_session_that_pauses_while_it_hears_misses_nothing(bench: TlsBench) -> None:
    """All that came is decrypted at once: no event would tell of records that OpenSSL holds back."""
    port, _, peer = bench.shaken()
    session = Pausing(port)
    data = bytes(range(256)) * 4000
    peer.send(data)
    for _ in range(1000):
        bench.run(peer)
        port.resume()
        if len(session.received) == len(data):
            break
    assert session.received == data


def test_a_paused_port_hears_nothing(bench: TlsBench) -> None:
    port, session, peer = bench.shaken()
    port.pause()
    peer.send(b"x")
    for _ in range(20):
        bench.run(peer)
    assert session.received == b""
    port.resume()
    bench.until_done(lambda: session.received, peer)


# -- the end -----------------------------------------------------------------------------------------------------------


@each_version
def test_a_peer_that_says_that_it_leaves_has_left_after_its_last_words(
    bench: TlsBench, version: ssl.TLSVersion
) -> None:
    port, session, peer = bench.shaken(theirs(version))
    peer.send(b"last words")
    peer.leave()
    bench.until_done(lambda: port.closed, peer)
    assert session.received == b"last words"
    assert session.ends == ["end of file"]


def test_a_peer_that_is_cut_off_has_left_after_its_last_words(bench: TlsBench) -> None:
    port, session, peer = bench.shaken()
    peer.send(b"last words")
    peer.step()
    peer.socket.close()
    bench.until_done(lambda: port.closed)
    assert session.received == b"last words"
    assert session.ends == ["end of file"]


def test_half_a_record_before_the_end_is_nothing(bench: TlsBench) -> None:
    port, session, peer = bench.shaken()
    peer.send(b"whole")
    peer.step()
    peer.send(b"half")
    peer.socket.send(peer.outgoing.read()[:-1])
    peer.socket.close()
    bench.until_done(lambda: port.closed)
    assert session.received == b"whole"
    assert session.ends == ["end of file"]


def test_a_reset_is_the_end(bench: TlsBench) -> None:
    port, session, peer = bench.shaken()
    reset(peer.socket)
    bench.until_done(lambda: port.closed)
    assert session.ends == ["connection reset by peer"]
    assert port.write_all(b"x")


def test_bytes_that_nobody_encrypted_end_the_connection(bench: TlsBench) -> None:
    port, session, peer = bench.shaken()
    peer.send(b"before")
    peer.step()
    peer.socket.send(b"Q\0\0\0\x0dSELECT 1\0")
    bench.until_done(lambda: port.closed)
    assert session.received == b"before"
    assert session.ends == ["TLS: wrong version number"]


def test_a_record_that_was_tampered_with_ends_the_connection(bench: TlsBench) -> None:
    port, session, peer = bench.shaken()
    peer.send(b"DROP TABLE accounts")
    record = bytearray(peer.outgoing.read())
    record[-3] ^= 1
    peer.socket.send(record)
    bench.until_done(lambda: port.closed)
    assert session.received == b""
    assert session.ends[0].startswith("TLS: ")


@each_version
def test_last_words_arrive_whole_and_are_known_to_be_the_last(bench: TlsBench, version: ssl.TLSVersion) -> None:
    port, session, peer = bench.shaken(theirs(version), small=True)
    peer.send(b"x" * 10_000)
    words = bytes(range(256)) * 2000
    port.write_all(words)
    port.finish()
    bench.until_done(lambda: peer.end, peer)
    assert peer.received == words
    assert peer.end == "close_notify"
    peer.socket.close()
    bench.until_done(lambda: port.closed)
    assert session.ends == [], "the session hears no more of it"


def test_closing_says_so(bench: TlsBench) -> None:
    port, _, peer = bench.shaken()
    port.close()
    port.close()
    bench.until_done(lambda: peer.end, peer)
    assert peer.end == "close_notify"


@each_version
def test_a_port_that_ends_writing_still_hears(bench: TlsBench, version: ssl.TLSVersion) -> None:
    port, session, peer = bench.shaken(theirs(version))
    port.write_all(b"goodbye")
    port.end_writing()
    bench.until_done(lambda: peer.received, peer)
    peer.socket.setblocking(False)
    peer.send(b"and yours")
    bench.until_done(lambda: session.received, peer)
    peer.socket.close()
    bench.until_done(lambda: port.closed)
    assert (bytes(peer.received), bytes(session.received)) == (b"goodbye", b"and yours")
    assert session.ends == ["end of file"]


# -- the handshake -----------------------------------------------------------------------------------------------------


def test_what_is_written_before_hands_are_shaken_reaches_nobody(bench: TlsBench) -> None:
    port, _, peer = bench.encrypted()
    assert port.write_all(b"in clear text")
    bench.until_done(lambda: peer.shaken and port.encryption, peer)
    port.write_all(b"encrypted")
    bench.until_done(lambda: peer.received, peer)
    assert peer.received == b"encrypted"


def test_a_peer_that_is_refused_before_hands_are_shaken_is_left_in_time(bench: TlsBench) -> None:
    port, _, peer = bench.encrypted()
    port.write_all(b"too late")
    port.finish()
    bench.run(peer)
    bench.loop.pass_time(LINGER + 0.1)
    assert port.closed
    assert not peer.shaken


@given(st.binary(min_size=1, max_size=300))
def test_what_is_no_handshake_ends_the_connection_and_is_heard_by_nobody(garbage: bytes) -> None:
    bench = TlsBench()
    try:
        port, session, peer = bench.encrypted()
        peer.socket.send(garbage)
        peer.socket.close()
        bench.until_done(lambda: port.closed)
        assert session.received == b""
        assert len(session.ends) == 1
        assert session.ends[0].startswith("TLS handshake failed: ")
        assert not bench.reports
    finally:
        bench.close()


def test_an_old_version_of_tls_is_refused_if_the_operator_says_so(bench: TlsBench) -> None:
    bench.relay.tls = ours(min_version=TlsVersion.TLS_1_3)
    port, session, peer = bench.encrypted(theirs(ssl.TLSVersion.TLSv1_2))
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        bench.until_done(lambda: port.closed and peer.shaken, peer)
    assert session.ends == ["TLS handshake failed: unsupported protocol"]


@pytest.mark.parametrize("protocols", [("postgresql",), ("http/1.1", "postgresql")])
def test_who_begins_without_asking_and_names_the_protocol_is_let_in(
    bench: TlsBench, protocols: tuple[str, ...]
) -> None:
    port, session, peer = direct(bench, *protocols)
    bench.until_done(lambda: peer.shaken, peer)
    peer.send(b"startup")
    bench.until_done(lambda: session.received, peer)
    assert session.received == b"startup"
    assert peer.tls.selected_alpn_protocol() == "postgresql"
    assert not port.closed


@pytest.mark.parametrize("protocols", [(), ("http/1.1",), ("postgresql2",), ("Postgresql",)])
def test_who_begins_without_asking_must_name_the_protocol(bench: TlsBench, protocols: tuple[str, ...]) -> None:
    """Python goes on with a client that names others only: a browser could be made to speak to us."""
    port, session, peer = direct(bench, *protocols)
    peer.step()
    bench.until_done(lambda: peer.shaken or port.closed, peer)
    if not port.closed:
        peer.send(b"startup")
    bench.until_done(lambda: port.closed, peer)
    assert session.received == b""
    assert session.ends == ["TLS handshake failed: it does not name the protocol 'postgresql' (ALPN)"]
    assert port.encryption is None


def test_who_asked_before_need_not_name_a_protocol_but_must_not_name_others_only(bench: TlsBench) -> None:
    for protocols in ((), ("postgresql",), ("http/1.1", "postgresql")):
        bench.shaken(theirs(ssl.TLSVersion.TLSv1_3, *protocols))
    port, session, peer = bench.encrypted(theirs(ssl.TLSVersion.TLSv1_2, "http/1.1", "h2"))
    bench.until_done(lambda: port.closed, peer)
    assert session.ends == ["TLS handshake failed: it does not name the protocol 'postgresql' (ALPN)"]


def direct(bench: TlsBench, *protocols: str) -> tuple[TlsPort, Listening, Peer]:
    """A connection whose client has begun to shake hands without asking."""
    plain, session, connection = bench.pair()
    peer = Peer(connection, theirs(ssl.TLSVersion.TLSv1_3, *protocols))
    peer._hear()
    begin = bytes(peer.records)
    peer.records.clear()
    port = plain.encrypt(begin[:100])
    peer.records += begin[100:]
    assert isinstance(port, TlsPort)
    return port, session, peer


def test_each_turn_sees_one_step_of_one_handshake(bench: TlsBench) -> None:
    """A crowd that logs in must not keep those waiting who are in."""
    _, hearing, talking = bench.pair()
    crowd = [bench.encrypted() for _ in range(20)]
    for _, _, peer in crowd:
        peer.step()
    turns = 0
    while not all(port.encryption for port, _, _ in crowd):
        talking.send(b"q")
        bench.turn(0)
        assert len(hearing.received) == turns + 1, "a query waits for no more than one step"
        bench.loop.pass_time(0)
        shaken = sum(bool(port.encryption) for port, _, _ in crowd)
        for _, _, peer in crowd:
            peer.step()
        turns += 1
        assert shaken <= turns
        assert turns < 1000
    assert turns >= 20


def test_who_leaves_while_waiting_for_its_turn_does_no_harm(bench: TlsBench) -> None:
    crowd = [bench.encrypted() for _ in range(3)]
    for _, _, peer in crowd:
        peer.step()
    bench.turn(0)
    crowd[0][0].close()
    reset(crowd[1][2].socket)
    bench.until_done(lambda: crowd[2][0].encryption and crowd[1][0].closed, crowd[2][2])
    assert crowd[1][1].ends


def test_a_cancel_request_is_heard_though_its_sender_is_gone_before_its_turn(bench: TlsBench) -> None:
    """Whoever cancels need not wait for the end: behind the last step of the handshake comes all that was sent."""
    port, session, peer = bench.encrypted()
    peer.step()
    peer.step()
    bench.turn()
    bench.loop.pass_time(0)
    peer.incoming.write(peer.socket.recv(1 << 16))
    peer.tls.do_handshake()
    peer.send(b"cancel")
    peer.socket.sendall(peer.outgoing.read())
    peer.socket.shutdown(socket.SHUT_WR)
    bench.turn()
    assert not port.reading, "it waits for its turn"
    bench.wake_ups()
    assert (session.hang_ups, session.received) == (0, b"")
    bench.loop.pass_time(0)
    assert session.received == b"cancel"
    bench.until_done(lambda: session.ends, peer)


def expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label of one block (RFC 8446 section 7.1), with the hash of TLS_AES_256_GCM_SHA384."""
    name = b"tls13 " + label.encode()
    info = size.to_bytes(2) + bytes((len(name),)) + name + b"\0\1"
    return hmac.digest(secret, info, "sha384")[:size]


def key_updates(secret: bytes, count: int) -> bytes:
    """Records that ask for other keys, each under the keys of the one before (RFC 8446 sections 4.6.3 and 5.2)."""
    records = b""
    message = bytes.fromhex("180000010116")
    header = bytes((23, 3, 3)) + (len(message) + 16).to_bytes(2)
    for _ in range(count):
        records += header + AESGCM(expand(secret, "key", 32)).encrypt(expand(secret, "iv", 12), message, header)
        secret = expand(secret, "traffic upd", 48)
    return records


@pytest.mark.parametrize(("count", "ends"), [(10, False), (8000, True)])
def test_who_asks_for_other_keys_again_and_again_is_left(
    bench: TlsBench, tmp_path: Path, count: int, ends: bool
) -> None:
    """Each costs as much as a query, during which nobody else gets on, and an answer that is perhaps not read."""
    context = theirs()
    context.keylog_filename = str(tmp_path / "keys")
    port, session, peer = bench.shaken(context)
    lines = (tmp_path / "keys").read_text().splitlines()
    (secret,) = (line.split()[2] for line in lines if line.startswith("CLIENT_TRAFFIC_SECRET_0"))
    peer.records += key_updates(bytes.fromhex(secret), count)
    while peer.records and not port.closed:
        with contextlib.suppress(BlockingIOError):
            del peer.records[: peer.socket.send(peer.records)]
        bench.turn(0.05)
    bench.wake_ups()
    assert port._answers < 2 * ANSWERS_LIMIT, "not all that was sent was worked on"
    assert session.ends == (["TLS: the peer asks for other keys again and again"] if ends else [])
    assert port.closed is ends


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_client_is_known_by_its_certificate(bench: TlsBench) -> None:
    shown = authority().certify("alice", hosts=(), more=((NameOID.ORGANIZATION_NAME, 'Shop, "A+B" <x>'),))
    context = theirs()
    context.load_cert_chain(shown.cert, shown.key)
    port, _, _ = bench.shaken(context)
    assert port.encryption is not None
    assert port.encryption.certificate == ClientCertificate(r"CN=alice,O=Shop\, \"A\+B\" \<x\>", "alice")


def test_the_certificate_of_another_authority_is_refused(bench: TlsBench) -> None:
    stranger = Authority(authority().folder, "stranger").certify("mallory", hosts=())
    context = theirs(ssl.TLSVersion.TLSv1_2)
    context.load_cert_chain(stranger.cert, stranger.key)
    port, session, peer = bench.encrypted(context)
    with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
        bench.until_done(lambda: peer.shaken, peer)
    assert port.closed
    assert session.ends == ["TLS handshake failed: unable to get local issuer certificate"]


def test_a_name_with_a_zero_byte_is_no_name() -> None:
    """A name that is cut off at the zero would be another's (CVE-2009-4034)."""
    with pytest.raises(ValueError, match="zero byte"):
        client_certificate({"subject": ((("commonName", "alice\0.example.com"),),)})


@pytest.mark.parametrize(
    ("subject", "written"),
    [
        (((("commonName", "alice"),),), "CN=alice"),
        (((("countryName", "DE"),), (("organizationName", "Shop"),), (("commonName", "a"),)), "CN=a,O=Shop,C=DE"),
        (((("commonName", "a"), ("userId", "7")),), "CN=a+UID=7"),
        (((("commonName", " a "),),), r"CN=\ a\ "),
        (((("commonName", "#a"),),), r"CN=\#a"),
        (((("emailAddress", "a@b"),),), "emailAddress=a@b"),
    ],
)
def test_a_name_is_written_as_rfc_2253_does(subject: tuple[tuple[tuple[str, str], ...], ...], written: str) -> None:
    read = client_certificate({"subject": subject})
    assert read is not None
    assert read.subject == written
