"""The configuration as values: what every key is called, its type, its bounds, its default and its meaning.

Everything else reads this module: the file readers take types and bounds from it, `schema.py` prints it for editors,
and a test holds docs/reference/configuration.md to it.  All times are seconds.  Instances are immutable and survive
`msgspec.json.encode` and `decode(type=Configuration)`, which is how the supervisor hands them to a worker.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from pgpooler.config.hba import HbaMethod, HbaRule, IdentLine, for_everybody

TEN_YEARS: Final = 315_360_000
LARGEST_NUMBER: Final = 2**31 - 1
NO_LIMIT: Final = LARGEST_NUMBER
"""A limit that no number of connections reaches."""
MASK: Final = "********"
AUTH_QUERY: Final = (
    "SELECT rolname, rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin "
    "AND (rolvaliduntil IS NULL OR rolvaliduntil >= pg_catalog.now())"
)
"""What `auth_query` is where nobody has written it: PostgreSQL's own conditions for a login with a password."""


class PoolMode(enum.StrEnum):
    """How long a client holds a server connection."""

    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


class ResetPolicy(enum.StrEnum):
    """When a server connection is reset before another client gets it; `smart`: where something may be left in it."""

    ALWAYS = "always"
    SMART = "smart"
    NEVER = "never"


class SessionStatePolicy(enum.StrEnum):
    """What happens when a statement leaves something in the session that only its own client may find again."""

    PIN = "pin"
    ERROR = "error"
    ALLOW = "allow"


class AuthMethod(enum.StrEnum):
    """How a client proves who it is; `trust` believes it without proof and must be written out."""

    SCRAM_SHA_256 = "scram-sha-256"
    MD5 = "md5"
    PLAIN = "plain"
    CERT = "cert"
    TRUST = "trust"


HBA_METHODS: Final = {
    AuthMethod.SCRAM_SHA_256: HbaMethod.SCRAM_SHA_256,
    AuthMethod.MD5: HbaMethod.MD5,
    AuthMethod.PLAIN: HbaMethod.PASSWORD,
    AuthMethod.CERT: HbaMethod.CERT,
    AuthMethod.TRUST: HbaMethod.TRUST,
}
"""What `method` is called in a pg_hba.conf."""


class TlsMode(enum.StrEnum):
    """Whether a connection is encrypted, and whom the other end must prove to be (libpq-ssl-sslmode-statements)."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def required(self) -> bool:
        """Nothing goes over a connection that is not encrypted."""
        return self in (TlsMode.REQUIRE, TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL)

    @property
    def verified(self) -> bool:
        """The other end must show a certificate that can be trusted."""
        return self in (TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL)


class TlsVersion(enum.StrEnum):
    """The versions of TLS that are not broken."""

    TLS_1_2 = "TLSv1.2"
    TLS_1_3 = "TLSv1.3"


class ChannelBinding(enum.StrEnum):
    """Whether a login to a server proves that TLS ends at that server, as libpq's connection parameter of this name."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"


class ProtocolVersion(enum.StrEnum):
    """The versions of PostgreSQL's protocol that a server may be asked for, as libpq spells them."""

    V3_0 = "3.0"
    V3_2 = "3.2"
    LATEST = "latest"


class LogLevel(enum.StrEnum):
    """The least important messages that are still logged."""

    ERROR = "error"
    WARN = "warn"
    INFO = "info"
    DEBUG = "debug"


class LogDestination(enum.StrEnum):
    """Where log lines go."""

    FILE = "file"
    STDERR = "stderr"


class LogFormat(enum.StrEnum):
    """How a log line is written."""

    TEXT = "text"
    JSON = "json"


class PatternKind(enum.StrEnum):
    """The three forms of one name in a matcher."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"


def _meaning(description: str, reader: str = "", *, low: int | None = None, high: int | None = None) -> Meta:
    """A key's meaning and bounds; `reader` names the function that reads its text where the type alone does not say."""
    return Meta(description=description, ge=low, le=high, extra={"reader": reader} if reader else None)


def _count(description: str, low: int = 0, high: int = LARGEST_NUMBER) -> Meta:
    return _meaning(description, low=low, high=high)


def _time(description: str) -> Meta:
    return _meaning(description, low=0, high=TEN_YEARS)


INTERNAL: Final = Meta(extra={"internal": True})
"""Marks a field that is filled by the reader and is no key of any file."""

PoolModeKey = Annotated[PoolMode, _meaning("how long a client holds a server connection")]
ResetKey = Annotated[str, _meaning("always, smart, never, or a statement that is run after every lease", "reset_query")]
SessionStateKey = Annotated[
    SessionStatePolicy,
    _meaning("what a statement does that leaves temporary objects, LISTEN, locks... (not in session mode)"),
]
PoolSizeKey = Annotated[int, _count("most server connections of one pool (backend, database, user); 0 = no limit")]
MinPoolSizeKey = Annotated[int, _count("server connections that a pool keeps open while it has clients")]
ReserveSizeKey = Annotated[int, _count("further server connections of a pool for clients that wait too long")]
ReserveTimeoutKey = Annotated[float, _time("wait after which a client may use the reserve; 0 = never")]
MaxPreparedKey = Annotated[
    int, _count("most statements kept prepared on one server connection, outside session mode; 0 = any number")
]
MaxPinnedKey = Annotated[int, _count("most server connections of one pool that are pinned; absent = half of pool_size")]
MaxQueueKey = Annotated[int, _count("most clients that wait for a server connection of one pool; 0 = no limit")]
MaxUserKey = Annotated[int, _count("most client connections of one user, over all pools; 0 = no limit")]
MaxDatabaseKey = Annotated[int, _count("most client connections to one database, over all pools; 0 = no limit")]
QueryWaitKey = Annotated[float, _time("longest wait for a server connection, then error 53300; 0 = for ever")]
QueryKey = Annotated[float, _time("a query that runs for longer is canceled, 57014; 0 = never")]
TransactionKey = Annotated[float, _time("a client whose transaction lasts longer is ended, 25P04; 0 = never")]
IdleTransactionKey = Annotated[float, _time("a client quiet for longer in a transaction is ended, 25P03; 0 = never")]
PinnedIdleKey = Annotated[float, _time("a pinned client quiet for longer is ended, 57P05; 0 = never")]
SessionIdleKey = Annotated[float, _time("a client that sends nothing for this long is disconnected; 0 = never")]
CancelWaitKey = Annotated[float, _time("longest time to deliver a cancel request to a server; 0 = for ever")]
ServerConnectKey = Annotated[float, _time("longest time to connect and log in to a server; 0 = for ever")]
ServerIdleKey = Annotated[float, _time("an unused server connection is closed after this time; 0 = never")]
ServerLifetimeKey = Annotated[float, _time("an older server connection is closed when it is next unused; 0 = never")]


class PoolSettings(Struct, frozen=True, kw_only=True):
    """The inheritable keys with their built-in values: rule > backend > defaults > limits, timeouts > these.

    None is a built-in value that depends on another key: `server_reset_query` on `pool_mode`, `max_pinned` on
    `pool_size`.  `Route` says what it comes to.
    """

    pool_mode: PoolModeKey = PoolMode.SESSION
    server_reset_query: ResetKey | None = None
    on_session_state: SessionStateKey = SessionStatePolicy.PIN
    pool_size: PoolSizeKey = 20
    min_pool_size: MinPoolSizeKey = 0
    reserve_pool_size: ReserveSizeKey = 0
    reserve_pool_timeout: ReserveTimeoutKey = 5.0
    max_pinned: MaxPinnedKey | None = None
    max_prepared_statements: MaxPreparedKey = 200
    max_queue: MaxQueueKey = 0
    max_user_client_connections: MaxUserKey = 0
    max_db_client_connections: MaxDatabaseKey = 0
    query_wait_timeout: QueryWaitKey = 60.0
    query_timeout: QueryKey = 0.0
    transaction_timeout: TransactionKey = 0.0
    idle_transaction_timeout: IdleTransactionKey = 0.0
    pinned_idle_timeout: PinnedIdleKey = 0.0
    session_idle_timeout: SessionIdleKey = 0.0
    cancel_wait_timeout: CancelWaitKey = 10.0
    server_connect_timeout: ServerConnectKey = 15.0
    server_idle_timeout: ServerIdleKey = 600.0
    server_lifetime: ServerLifetimeKey = 3600.0


class BackendOverrides(Struct, frozen=True, kw_only=True):
    """The inheritable keys a backend may set; None = inherit.  Its `pool_size` is something else: see `Backend`."""

    pool_mode: PoolModeKey | None = None
    server_reset_query: ResetKey | None = None
    on_session_state: SessionStateKey | None = None
    min_pool_size: MinPoolSizeKey | None = None
    reserve_pool_size: ReserveSizeKey | None = None
    reserve_pool_timeout: ReserveTimeoutKey | None = None
    max_pinned: MaxPinnedKey | None = None
    max_prepared_statements: MaxPreparedKey | None = None
    max_queue: MaxQueueKey | None = None
    max_user_client_connections: MaxUserKey | None = None
    max_db_client_connections: MaxDatabaseKey | None = None
    query_wait_timeout: QueryWaitKey | None = None
    query_timeout: QueryKey | None = None
    transaction_timeout: TransactionKey | None = None
    idle_transaction_timeout: IdleTransactionKey | None = None
    pinned_idle_timeout: PinnedIdleKey | None = None
    session_idle_timeout: SessionIdleKey | None = None
    cancel_wait_timeout: CancelWaitKey | None = None
    server_connect_timeout: ServerConnectKey | None = None
    server_idle_timeout: ServerIdleKey | None = None
    server_lifetime: ServerLifetimeKey | None = None


class Overrides(BackendOverrides, frozen=True, kw_only=True):
    """The inheritable keys that a rule and `defaults` may set; None = inherit."""

    pool_size: PoolSizeKey | None = None


class _Masked(Struct, frozen=True, kw_only=True):
    """Prints itself without its secrets."""

    def __repr__(self) -> str:
        secret = secret_fields(type(self))
        shown = ", ".join(
            f"{name}={MASK if name in secret and value else value!r}"
            for name, value in msgspec.structs.asdict(self).items()
        )
        return f"{type(self).__name__}({shown})"


class Listen(Struct, frozen=True, kw_only=True):
    """Where clients connect."""

    hosts: Annotated[
        tuple[Annotated[str, _meaning("", "listen_host")], ...],
        _meaning("address or name to listen on, or a list of them; * = every IPv4 and IPv6 address"),
    ] = msgspec.field(default=("0.0.0.0",), name="host")  # noqa: S104 - a pooler nobody can reach is of no use
    port: Annotated[int, _count("TCP port to listen on", 1, 65535)] = 6432
    unix_socket_dir: Annotated[str, _meaning("folder of the unix socket .s.PGSQL.<port>; empty = none", "path")] = ""
    unix_socket_mode: Annotated[int, _meaning("permissions of the unix socket, octal", "octal", low=0, high=0o777)] = (
        0o777
    )
    backlog: Annotated[int, _count("connections the kernel queues before they are accepted", 1)] = 4096


class LogFile(Struct, frozen=True, kw_only=True):
    """The log file: an explicit `path`, or a `directory` with a date pattern."""

    path: Annotated[str, _meaning("the log file; wins over directory and filename", "path")] = ""
    directory: Annotated[str, _meaning("folder of the log files", "path")] = ""
    filename: Annotated[str, _meaning("name in the folder, a strftime pattern")] = "pgpooler-%Y-%m-%d.log"
    append: Annotated[bool, _meaning("go on at the end of an existing file; false = empty it at start")] = True
    rotation_age: Annotated[float, _time("start a new file after this time; 0 = never")] = 0.0
    rotation_size_mb: Annotated[int, _count("start a new file after this many MiB; 0 = never")] = 0
    keep: Annotated[int, _count("rotated files to keep; 0 = all")] = 0


class Logging(Struct, frozen=True, kw_only=True):
    """What is logged, where and how."""

    level: Annotated[LogLevel, _meaning("least important messages that are logged")] = LogLevel.INFO
    destination: Annotated[LogDestination, _meaning("file or stderr; file when a file is given")] = (
        LogDestination.STDERR
    )
    format: Annotated[LogFormat, _meaning("a line of text, or one JSON object per line")] = LogFormat.TEXT
    file: Annotated[LogFile, _meaning("the log file")] = LogFile()


KeyFileKey = Annotated[str, _meaning("file of its private key, in PEM; absent = in the file cert", "path")]
TlsVersionKey = Annotated[TlsVersion, _meaning("oldest version of TLS that is spoken")]
CiphersKey = Annotated[str, _meaning("ciphers of TLS 1.2, as a list of OpenSSL; absent = OpenSSL's own")]


class ClientTls(Struct, frozen=True, kw_only=True):
    """TLS towards clients."""

    mode: Annotated[
        TlsMode | None,
        _meaning(
            "whether clients may or must encrypt, and prove who they are; absent = prefer with cert, else disable"
        ),
    ] = None
    cert: Annotated[str, _meaning("file of PgPooler's certificate and those up to its root, in PEM", "path")] = ""
    key: KeyFileKey = ""
    ca: Annotated[str, _meaning("file of the authorities that certify clients, in PEM", "path")] = ""
    min_version: TlsVersionKey = TlsVersion.TLS_1_2
    ciphers: CiphersKey = ""

    @property
    def demand(self) -> TlsMode:
        """The mode, also where none is written."""
        return self.mode or (TlsMode.PREFER if self.cert else TlsMode.DISABLE)

    @property
    def offered(self) -> bool:
        """Clients can encrypt."""
        return self.demand is not TlsMode.DISABLE


class BackendTls(Struct, frozen=True, kw_only=True):
    """TLS towards one backend."""

    mode: Annotated[TlsMode, _meaning("whether the server may or must encrypt, and prove who it is, as in libpq")] = (
        TlsMode.PREFER
    )
    ca: Annotated[
        str, _meaning("file of the authorities that certify the server, in PEM; absent = the system's", "path")
    ] = ""
    cert: Annotated[str, _meaning("file of the certificate that PgPooler shows the server, in PEM", "path")] = ""
    key: KeyFileKey = ""
    min_version: TlsVersionKey = TlsVersion.TLS_1_2
    ciphers: CiphersKey = ""


class Backend(_Masked, BackendOverrides, frozen=True, kw_only=True):
    """A PostgreSQL server that clients are routed to."""

    name: Annotated[str, _meaning("name that rules use")]
    host: Annotated[str, _meaning("name, address, or absolute folder of a unix socket", "backend_host")]
    port: Annotated[int, _count("TCP port, or the number in the unix socket's name", 1, 65535)] = 5432
    channel_binding: Annotated[
        ChannelBinding, _meaning("whether a login proves that TLS ends at this very server (SCRAM-SHA-256-PLUS)")
    ] = ChannelBinding.PREFER
    max_protocol_version: Annotated[
        ProtocolVersion, _meaning("newest protocol that the server is asked for; 3.2 has long cancel keys")
    ] = ProtocolVersion.V3_0
    pool_size: Annotated[int, _count("most server connections to this backend, over all its pools; 0 = no limit")] = 0
    user: Annotated[str, _meaning("log in to the server as this user; empty = as the client's user")] = ""
    password: Annotated[str, _meaning("password of that user", "secret")] = ""
    tls: Annotated[BackendTls, _meaning("TLS towards this backend; absent = not encrypted")] = BackendTls(
        mode=TlsMode.DISABLE
    )
    auth_query: Annotated[str, _meaning("auth_query of this server; empty = that of the section auth")] = ""
    auth_user: Annotated[str, _meaning("auth_user of this server; empty = that of the section auth")] = ""
    auth_password: Annotated[
        str, _meaning("auth_password of this server; empty = as its auth_user has it", "secret")
    ] = ""
    auth_dbname: Annotated[str, _meaning("auth_dbname of this server; empty = that of the section auth")] = ""


class Pattern(Struct, frozen=True, kw_only=True):
    """One form of a name: exactly `text`, starting with `text` (empty = anything), or found by the regex `text`."""

    kind: PatternKind
    text: str


Matcher = Annotated[tuple[Pattern, ...], Meta(extra={"reader": "matcher"})]


class Rule(Overrides, frozen=True, kw_only=True):
    """One routing rule: whom it matches, and where they go.  A matcher that is None matches anything."""

    name: Annotated[str, _meaning("name for people, also of the rule's pools")] = ""
    database: Annotated[Matcher | None, _meaning("databases that match: a name, x*, ~ regex, or a list of these")] = (
        None
    )
    user: Annotated[Matcher | None, _meaning("users that match; together with database both must match")] = None
    default: Annotated[bool, _meaning("matches everything; stands last")] = False
    backend: Annotated[str, _meaning("name of the backend that serves these clients", "backend")]
    place: Annotated[str, INTERNAL] = ""


class Routing(Struct, frozen=True, kw_only=True):
    """Which backend serves whom; the first matching rule wins; without rules the first backend serves everybody."""

    defaults: Annotated[Overrides, _meaning("values for rules and backends that do not set them")] = Overrides()
    rules: Annotated[
        tuple[Rule, ...], _meaning("the rules, in order (in routing.yaml the list is called routing)")
    ] = ()


class User(_Masked, frozen=True, kw_only=True):
    """A user: what clients prove, and what PgPooler logs in with where the backend does not say otherwise."""

    name: Annotated[str, INTERNAL]
    password: Annotated[str, _meaning("cleartext, md5..., or a SCRAM-SHA-256$... verifier", "secret")] = ""


class Auth(_Masked, frozen=True, kw_only=True):
    """How clients prove who they are.

    `users` holds those of `users_file` too; `hba` and `ident` are what the two files say.  With `hba` its entries
    decide, and `method` means nothing.
    """

    method: Annotated[AuthMethod, _meaning("how clients prove who they are")] = AuthMethod.SCRAM_SHA_256
    users: Annotated[Mapping[str, User], _meaning("the users by name", "users")] = msgspec.field(default_factory=dict)
    users_file: Annotated[str, _meaning("file of users in the form of PgBouncer's userlist.txt", "path")] = ""
    auth_user: Annotated[
        str, _meaning("who asks servers for the secrets of users that are not listed; empty = nobody asks")
    ] = ""
    auth_password: Annotated[str, _meaning("password of auth_user; empty = as in users", "secret")] = ""
    auth_query: Annotated[str, _meaning("the query for the name and the secret of user $1")] = AUTH_QUERY
    auth_dbname: Annotated[str, _meaning("database in which auth_query is run")] = "postgres"
    auth_query_cache_ttl: Annotated[
        float, _time("how long a secret that was asked for is good; 0 = ask every time")
    ] = 0.0
    auth_query_negative_ttl: Annotated[float, _time("how long a user who was not found is not asked for again")] = 1.0
    hba_file: Annotated[str, _meaning("file that says who may log in and how, in the form of pg_hba.conf", "path")] = ""
    ident_file: Annotated[str, _meaning("file of user name maps, in the form of pg_ident.conf", "path")] = ""
    failed_logins_limit: Annotated[int, _count("failed logins of a user from an address, then 53400; 0 = any")] = 0
    failed_logins_window: Annotated[float, _time("time in which they count, and after which they are forgotten")] = 60.0
    hba: Annotated[tuple[HbaRule, ...], INTERNAL] = ()
    ident: Annotated[tuple[IdentLine, ...], INTERNAL] = ()

    @property
    def rules(self) -> tuple[HbaRule, ...]:
        """The entries that decide: those of `hba_file`, without one `method` for everybody."""
        return self.hba if self.hba_file else for_everybody(HBA_METHODS[self.method])


class Limits(Struct, frozen=True, kw_only=True):
    """Limits; None = the built-in value of `PoolSettings`."""

    max_client_conn: Annotated[int, _count("most client connections", 1)] = 1000
    max_queue: MaxQueueKey | None = None
    max_user_client_connections: MaxUserKey | None = None
    max_db_client_connections: MaxDatabaseKey | None = None


class Timeouts(Struct, frozen=True, kw_only=True):
    """Time limits; None = the built-in value of `PoolSettings`."""

    client_login_timeout: Annotated[float, _time("longest time from connecting to logged in; 0 = for ever")] = 60.0
    drain_timeout: Annotated[float, _time("how long a stopping PgPooler lets transactions end")] = 30.0
    query_wait_timeout: QueryWaitKey | None = None
    reserve_pool_timeout: ReserveTimeoutKey | None = None
    query_timeout: QueryKey | None = None
    transaction_timeout: TransactionKey | None = None
    idle_transaction_timeout: IdleTransactionKey | None = None
    pinned_idle_timeout: PinnedIdleKey | None = None
    session_idle_timeout: SessionIdleKey | None = None
    cancel_wait_timeout: CancelWaitKey | None = None
    server_connect_timeout: ServerConnectKey | None = None
    server_idle_timeout: ServerIdleKey | None = None
    server_lifetime: ServerLifetimeKey | None = None


class Configuration(Struct, frozen=True, kw_only=True):
    """Everything the operator wrote.  `files` are the absolute paths of all files that were read."""

    listen: Annotated[Listen, _meaning("where clients connect")] = Listen()
    logging: Annotated[Logging, _meaning("what is logged")] = Logging()
    backends: Annotated[tuple[Backend, ...], _meaning("the PostgreSQL servers")]
    routing: Annotated[Routing, _meaning("which backend serves whom")] = Routing()
    auth: Annotated[Auth, _meaning("how clients prove who they are")] = Auth()
    tls: Annotated[ClientTls, _meaning("TLS towards clients")] = ClientTls()
    limits: Annotated[Limits, _meaning("limits")] = Limits()
    timeouts: Annotated[Timeouts, _meaning("time limits")] = Timeouts()
    workers: Annotated[int, _meaning("number of worker processes; this version runs one", "workers")] = 1
    files: Annotated[tuple[str, ...], INTERNAL] = ()


@cache
def secret_fields(kind: type[Struct]) -> frozenset[str]:
    """The names of the fields of a model class that hold secrets."""
    return frozenset(key.field for key in keys_of(kind).values() if key.reader == "secret")


class Key(Struct, frozen=True, kw_only=True):
    """One key of a model class, as the readers and the schema need it.

    `field` is the attribute that holds the value, `type` its msgspec type without metadata and "or None", `default`
    what an absent key means (None = inherited).
    """

    name: str
    field: str
    type: Any
    reader: str
    description: str
    required: bool
    default: Any


@cache
def keys_of(kind: type[Struct]) -> Mapping[str, Key]:
    """The keys of a model class by their names in files, without its internal fields."""
    keys = {}
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        plain, reader, description, internal = _strip(field.type)
        if not internal:
            keys[field.encode_name] = Key(
                name=field.encode_name,
                field=field.name,
                type=plain,
                reader=reader,
                description=description,
                required=field.required,
                default=field.default,
            )
    return keys


def _strip(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, str, str, bool]:
    """Take the metadata and the "or None" off a type."""
    reader, description, internal = "", "", False
    while True:
        if isinstance(kind, msgspec.inspect.Metadata):
            extra = kind.extra or {}
            reader = reader or extra.get("reader", "")
            internal = internal or bool(extra.get("internal"))
            description = description or (kind.extra_json_schema or {}).get("description", "")
            kind = kind.type
        elif isinstance(kind, msgspec.inspect.UnionType):
            (kind,) = (part for part in kind.types if not isinstance(part, msgspec.inspect.NoneType))
        else:
            return kind, reader, description, internal
