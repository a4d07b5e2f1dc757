"""The configuration as values: what every key is called, its type, its bounds, its default and its meaning.

Everything else reads this module: the file readers take types and bounds from it, `schema.py` prints it for editors,
and a test holds docs/reference/configuration.md to it.  All times are seconds.  Instances are immutable and survive
`msgspec.json.encode` and `decode(type=Configuration)`, which is how the supervisor hands them to a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from pgpooler.config.choices import (
    HBA_METHODS,
    AuthMethod,
    ChannelBinding,
    LogDestination,
    LogFormat,
    LogLevel,
    PatternKind,
    PoolMode,
    ProtocolVersion,
    SessionStatePolicy,
    TlsMode,
    TlsVersion,
)
from pgpooler.config.hba import HbaRule, IdentLine, for_everybody
from pgpooler.config.keys import INTERNAL, LARGEST_NUMBER, count, meaning, secret_fields, time

NO_LIMIT: Final = LARGEST_NUMBER
"""A limit that no number of connections reaches."""
MASK: Final = "********"
AUTH_QUERY: Final = (
    "SELECT rolname, rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin "
    "AND (rolvaliduntil IS NULL OR rolvaliduntil >= pg_catalog.now())"
)
"""What `auth_query` is where nobody has written it: PostgreSQL's own conditions for a login with a password."""


PoolModeKey = Annotated[PoolMode, meaning("how long a client holds a server connection")]
ResetKey = Annotated[str, meaning("always, smart, never, or a statement that is run after every lease", "reset_query")]
SessionStateKey = Annotated[
    SessionStatePolicy,
    meaning("what a statement does that leaves temporary objects, LISTEN, locks... (not in session mode)"),
]
PoolSizeKey = Annotated[int, count("most server connections of one pool (backend, database, user); 0 = no limit")]
MinPoolSizeKey = Annotated[int, count("server connections that a pool keeps open while it has clients")]
ReserveSizeKey = Annotated[int, count("further server connections of a pool for clients that wait too long")]
ReserveTimeoutKey = Annotated[float, time("wait after which a client may use the reserve; 0 = never")]
MaxPreparedKey = Annotated[
    int, count("most statements kept prepared on one server connection, outside session mode; 0 = any number")
]
MaxPinnedKey = Annotated[int, count("most server connections of one pool that are pinned; absent = half of pool_size")]
MaxQueueKey = Annotated[int, count("most clients that wait for a server connection of one pool; 0 = no limit")]
MaxUserKey = Annotated[int, count("most client connections of one user, over all pools; 0 = no limit")]
MaxDatabaseKey = Annotated[int, count("most client connections to one database, over all pools; 0 = no limit")]
QueryWaitKey = Annotated[float, time("longest wait for a server connection, then error 53300; 0 = for ever")]
QueryKey = Annotated[float, time("a query that runs for longer is canceled, 57014; 0 = never")]
TransactionKey = Annotated[float, time("a client whose transaction lasts longer is ended, 25P04; 0 = never")]
IdleTransactionKey = Annotated[float, time("a client quiet for longer in a transaction is ended, 25P03; 0 = never")]
PinnedIdleKey = Annotated[float, time("a pinned client quiet for longer is ended, 57P05; 0 = never")]
SessionIdleKey = Annotated[float, time("a client that sends nothing for this long is disconnected; 0 = never")]
CancelWaitKey = Annotated[float, time("longest time to deliver a cancel request to a server; 0 = for ever")]
ServerConnectKey = Annotated[float, time("longest time to connect and log in to a server; 0 = for ever")]
ServerIdleKey = Annotated[float, time("an unused server connection is closed after this time; 0 = never")]
ServerLifetimeKey = Annotated[float, time("an older server connection is closed when it is next unused; 0 = never")]


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
        tuple[Annotated[str, meaning("", "listen_host")], ...],
        meaning("address or name to listen on, or a list of them; * = every IPv4 and IPv6 address"),
    ] = msgspec.field(default=("0.0.0.0",), name="host")  # noqa: S104 - a pooler nobody can reach is of no use
    port: Annotated[int, count("TCP port to listen on", 1, 65535)] = 6432
    unix_socket_dir: Annotated[str, meaning("folder of the unix socket .s.PGSQL.<port>; empty = none", "path")] = ""
    unix_socket_mode: Annotated[int, meaning("permissions of the unix socket, octal", "octal", low=0, high=0o777)] = (
        0o777
    )
    backlog: Annotated[int, count("connections the kernel queues before they are accepted", 1)] = 4096


class LogFile(Struct, frozen=True, kw_only=True):
    """The log file: an explicit `path`, or a `directory` with a date pattern."""

    path: Annotated[str, meaning("the log file; wins over directory and filename", "path")] = ""
    directory: Annotated[str, meaning("folder of the log files", "path")] = ""
    filename: Annotated[str, meaning("name in the folder, a strftime pattern")] = "pgpooler-%Y-%m-%d.log"
    append: Annotated[bool, meaning("go on at the end of an existing file; false = empty it at start")] = True
    rotation_age: Annotated[float, time("start a new file after this time; 0 = never")] = 0.0
    rotation_size_mb: Annotated[int, count("start a new file after this many MiB; 0 = never")] = 0
    keep: Annotated[int, count("rotated files to keep; 0 = all")] = 0


class Logging(Struct, frozen=True, kw_only=True):
    """What is logged, where and how."""

    level: Annotated[LogLevel, meaning("least important messages that are logged")] = LogLevel.INFO
    destination: Annotated[LogDestination, meaning("file or stderr; file when a file is given")] = LogDestination.STDERR
    format: Annotated[LogFormat, meaning("a line of text, or one JSON object per line")] = LogFormat.TEXT
    file: Annotated[LogFile, meaning("the log file")] = LogFile()


KeyFileKey = Annotated[str, meaning("file of its private key, in PEM; absent = in the file cert", "path")]
TlsVersionKey = Annotated[TlsVersion, meaning("oldest version of TLS that is spoken")]
CiphersKey = Annotated[str, meaning("ciphers of TLS 1.2, as a list of OpenSSL; absent = OpenSSL's own")]


class ClientTls(Struct, frozen=True, kw_only=True):
    """TLS towards clients."""

    mode: Annotated[
        TlsMode | None,
        meaning("whether clients may or must encrypt, and prove who they are; absent = prefer with cert, else disable"),
    ] = None
    cert: Annotated[str, meaning("file of PgPooler's certificate and those up to its root, in PEM", "path")] = ""
    key: KeyFileKey = ""
    ca: Annotated[str, meaning("file of the authorities that certify clients, in PEM", "path")] = ""
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

    mode: Annotated[TlsMode, meaning("whether the server may or must encrypt, and prove who it is, as in libpq")] = (
        TlsMode.PREFER
    )
    ca: Annotated[
        str, meaning("file of the authorities that certify the server, in PEM; absent = the system's", "path")
    ] = ""
    cert: Annotated[str, meaning("file of the certificate that PgPooler shows the server, in PEM", "path")] = ""
    key: KeyFileKey = ""
    min_version: TlsVersionKey = TlsVersion.TLS_1_2
    ciphers: CiphersKey = ""


class Backend(_Masked, BackendOverrides, frozen=True, kw_only=True):
    """A PostgreSQL server that clients are routed to."""

    name: Annotated[str, meaning("name that rules use")]
    host: Annotated[str, meaning("name, address, or absolute folder of a unix socket", "backend_host")]
    port: Annotated[int, count("TCP port, or the number in the unix socket's name", 1, 65535)] = 5432
    channel_binding: Annotated[
        ChannelBinding, meaning("whether a login proves that TLS ends at this very server (SCRAM-SHA-256-PLUS)")
    ] = ChannelBinding.PREFER
    max_protocol_version: Annotated[
        ProtocolVersion, meaning("newest protocol that the server is asked for; 3.2 has long cancel keys")
    ] = ProtocolVersion.V3_0
    pool_size: Annotated[int, count("most server connections to this backend, over all its pools; 0 = no limit")] = 0
    user: Annotated[str, meaning("log in to the server as this user; empty = as the client's user")] = ""
    password: Annotated[str, meaning("password of that user", "secret")] = ""
    tls: Annotated[BackendTls, meaning("TLS towards this backend; absent = not encrypted")] = BackendTls(
        mode=TlsMode.DISABLE
    )
    auth_query: Annotated[str, meaning("auth_query of this server; empty = that of the section auth")] = ""
    auth_user: Annotated[str, meaning("auth_user of this server; empty = that of the section auth")] = ""
    auth_password: Annotated[
        str, meaning("auth_password of this server; empty = as its auth_user has it", "secret")
    ] = ""
    auth_dbname: Annotated[str, meaning("auth_dbname of this server; empty = that of the section auth")] = ""


class Pattern(Struct, frozen=True, kw_only=True):
    """One form of a name: exactly `text`, starting with `text` (empty = anything), or found by the regex `text`."""

    kind: PatternKind
    text: str


Matcher = Annotated[tuple[Pattern, ...], Meta(extra={"reader": "matcher"})]


class Rule(Overrides, frozen=True, kw_only=True):
    """One routing rule: whom it matches, and where they go.  A matcher that is None matches anything."""

    name: Annotated[str, meaning("name for people, also of the rule's pools")] = ""
    database: Annotated[Matcher | None, meaning("databases that match: a name, x*, ~ regex, or a list of these")] = None
    user: Annotated[Matcher | None, meaning("users that match; together with database both must match")] = None
    default: Annotated[bool, meaning("matches everything; stands last")] = False
    backend: Annotated[str, meaning("name of the backend that serves these clients", "backend")]
    place: Annotated[str, INTERNAL] = ""


class Routing(Struct, frozen=True, kw_only=True):
    """Which backend serves whom; the first matching rule wins; without rules the first backend serves everybody."""

    defaults: Annotated[Overrides, meaning("values for rules and backends that do not set them")] = Overrides()
    rules: Annotated[tuple[Rule, ...], meaning("the rules, in order (in routing.yaml the list is called routing)")] = ()


class User(_Masked, frozen=True, kw_only=True):
    """A user: what clients prove, and what PgPooler logs in with where the backend does not say otherwise."""

    name: Annotated[str, INTERNAL]
    password: Annotated[str, meaning("cleartext, md5..., or a SCRAM-SHA-256$... verifier", "secret")] = ""


class Auth(_Masked, frozen=True, kw_only=True):
    """How clients prove who they are.

    `users` holds those of `users_file` too; `hba` and `ident` are what the two files say.  With `hba` its entries
    decide, and `method` means nothing.
    """

    method: Annotated[AuthMethod, meaning("how clients prove who they are")] = AuthMethod.SCRAM_SHA_256
    users: Annotated[Mapping[str, User], meaning("the users by name", "users")] = msgspec.field(default_factory=dict)
    users_file: Annotated[str, meaning("file of users in the form of PgBouncer's userlist.txt", "path")] = ""
    auth_user: Annotated[
        str, meaning("who asks servers for the secrets of users that are not listed; empty = nobody asks")
    ] = ""
    auth_password: Annotated[str, meaning("password of auth_user; empty = as in users", "secret")] = ""
    auth_query: Annotated[str, meaning("the query for the name and the secret of user $1")] = AUTH_QUERY
    auth_dbname: Annotated[str, meaning("database in which auth_query is run")] = "postgres"
    auth_query_cache_ttl: Annotated[float, time("how long a secret that was asked for is good; 0 = ask every time")] = (
        0.0
    )
    auth_query_negative_ttl: Annotated[float, time("how long a user who was not found is not asked for again")] = 1.0
    hba_file: Annotated[str, meaning("file that says who may log in and how, in the form of pg_hba.conf", "path")] = ""
    ident_file: Annotated[str, meaning("file of user name maps, in the form of pg_ident.conf", "path")] = ""
    failed_logins_limit: Annotated[int, count("failed logins of a user from an address, then 53400; 0 = any")] = 0
    failed_logins_window: Annotated[float, time("time in which they count, and after which they are forgotten")] = 60.0
    hba: Annotated[tuple[HbaRule, ...], INTERNAL] = ()
    ident: Annotated[tuple[IdentLine, ...], INTERNAL] = ()

    @property
    def rules(self) -> tuple[HbaRule, ...]:
        """The entries that decide: those of `hba_file`, without one `method` for everybody."""
        return self.hba if self.hba_file else for_everybody(HBA_METHODS[self.method])


class Limits(Struct, frozen=True, kw_only=True):
    """Limits; None = the built-in value of `PoolSettings`."""

    max_client_conn: Annotated[int, count("most client connections", 1)] = 1000
    max_queue: MaxQueueKey | None = None
    max_user_client_connections: MaxUserKey | None = None
    max_db_client_connections: MaxDatabaseKey | None = None


class Timeouts(Struct, frozen=True, kw_only=True):
    """Time limits; None = the built-in value of `PoolSettings`."""

    client_login_timeout: Annotated[float, time("longest time from connecting to logged in; 0 = for ever")] = 60.0
    drain_timeout: Annotated[float, time("how long a stopping PgPooler lets transactions end")] = 30.0
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

    listen: Annotated[Listen, meaning("where clients connect")] = Listen()
    logging: Annotated[Logging, meaning("what is logged")] = Logging()
    backends: Annotated[tuple[Backend, ...], meaning("the PostgreSQL servers")]
    routing: Annotated[Routing, meaning("which backend serves whom")] = Routing()
    auth: Annotated[Auth, meaning("how clients prove who they are")] = Auth()
    tls: Annotated[ClientTls, meaning("TLS towards clients")] = ClientTls()
    limits: Annotated[Limits, meaning("limits")] = Limits()
    timeouts: Annotated[Timeouts, meaning("time limits")] = Timeouts()
    workers: Annotated[int, meaning("number of worker processes; this version runs one", "workers")] = 1
    files: Annotated[tuple[str, ...], INTERNAL] = ()
