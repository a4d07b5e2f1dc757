"""Keys by the names that PgBouncer gives them, for those who come from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RENAMED: Final[Mapping[str, str]] = {
    "auth_file": "'users_file' in the section 'auth'",
    "auth_hba_file": "'hba_file' in the section 'auth'",
    "auth_ident_file": "'ident_file' in the section 'auth'",
    "auth_type": "'method' in the section 'auth'",
    "client_idle_timeout": "'session_idle_timeout'",
    "client_tls_ca_file": "'ca' in the section 'tls'",
    "client_tls_cert_file": "'cert' in the section 'tls'",
    "client_tls_ciphers": "'ciphers' in the section 'tls'",
    "client_tls_key_file": "'key' in the section 'tls'",
    "client_tls_protocols": "'min_version' in the section 'tls'",
    "client_tls_sslmode": "'mode' in the section 'tls'",
    "default_pool_size": "'pool_size' of a rule or of 'defaults'",
    "listen_addr": "'host' in the section 'listen'",
    "listen_backlog": "'backlog' in the section 'listen'",
    "listen_port": "'port' in the section 'listen'",
    "logfile": "'path' in the section 'file' of 'logging'",
    "max_db_connections": "'pool_size' of a backend",
    "max_user_connections": "'pool_size' of a rule, which caps the server connections of each of its users",
    "reserve_pool": "'reserve_pool_size'",
    "server_reset_query_always": "'server_reset_query: always'",
    "server_tls_ca_file": "'ca' in the section 'tls' of a backend",
    "server_tls_cert_file": "'cert' in the section 'tls' of a backend",
    "server_tls_ciphers": "'ciphers' in the section 'tls' of a backend",
    "server_tls_key_file": "'key' in the section 'tls' of a backend",
    "server_tls_protocols": "'min_version' in the section 'tls' of a backend",
    "server_tls_sslmode": "'mode' in the section 'tls' of a backend",
}
"""PgBouncer's name, and what is nearest to it here.  What has PgBouncer's name here too is not in the table."""


def renamed(name: str) -> str:
    """The end of a message about an unknown key: what it is called here, if it is one of PgBouncer's."""
    return f"; what PgBouncer calls {name} is {RENAMED[name]} here" if name in RENAMED else ""
