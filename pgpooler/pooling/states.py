"""Where a connection is in its life, and who reads the peer's bytes meanwhile.

    client           who reads what the client sends           next
    STARTUP          the login: startup packets                AUTHENTICATION, LOOKING_UP, CANCELING
    LOOKING_UP       nobody, until it is known who the user is AUTHENTICATION, WAITING, IDLE
    AUTHENTICATION   the login: password messages              COMPUTING, LOOKING_UP, WAITING, IDLE
    COMPUTING        nobody, until a slow computation is done  AUTHENTICATION, WAITING, IDLE
    IDLE             it holds no server: its next request asks for one
                                                               WAITING, ACTIVE
    WAITING          nobody, until a server is leased          ACTIVE
    ACTIVE           the server, requests being noted          IDLE, except in session mode
    CANCELING        nobody: it was a cancel request           CLOSED

    server           who reads what the server sends           next
    LOGIN            the login                                 IDLE, through the pool
    IDLE             nobody; changes of parameters are noted   STARTING, ACTIVE, PROBING
    STARTING         we: the client's parameters are being set ACTIVE, CLEANING
    ACTIVE           the client                                CLEANING, REFUSING, ASKING
    REFUSING         we: a transaction block is rolled back in statement mode
                                                               ACTIVE, CLEANING
    ASKING           we: the server is asked what the client has left in the session
                                                               ACTIVE, CLEANING
    CLEANING         we: owed replies are dropped, the transaction is rolled back, the session reset
                                                               IDLE, through the pool
    PROBING          we: an idle connection shows that it lives IDLE, through the pool

From every state a connection can go to CLOSED, in one way: `close` of its session, with a reason.
"""

from __future__ import annotations

from enum import IntEnum


class ClientState(IntEnum):
    """Where a client connection is in its life."""

    STARTUP = 0
    AUTHENTICATION = 1
    COMPUTING = 2
    WAITING = 3
    ACTIVE = 4
    CANCELING = 5
    CLOSED = 6
    IDLE = 7
    LOOKING_UP = 8


class ServerState(IntEnum):
    """Where a server connection is in its life."""

    LOGIN = 0
    IDLE = 1
    STARTING = 2
    ACTIVE = 3
    CLEANING = 4
    PROBING = 5
    CLOSED = 6
    REFUSING = 7
    ASKING = 8
