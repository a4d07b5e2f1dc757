"""The rules of pooling, each broken by one small change.  Every one of these mutants has to be noticed.

`anchor` is the number of the rule: release 1, modes 2, cleaning 3, order 4, limits 5, login 6, parameters 7, pins 9,
cancel 10, disconnects 11, server connections 12; `bytes` is the way of the bytes through the data plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.mutation.operators import Mutant, Module

POOLING = "pgpooler/pooling/"
PROTOCOL = "pgpooler/protocol/"


@dataclass(frozen=True)
class BrokenRule:
    """A rule, and the change that breaks it: `before` stands once in the module."""

    anchor: str
    name: str
    path: str
    before: str
    after: str


RULES = (
    # -- 1: release ----------------------------------------------------------------------------------------------------
    BrokenRule(
        "1",
        "a connection is released although a reply is owed",
        POOLING + "server.py",
        "return self.status == codes.IDLE and self.owed.nothing and not self.framer.passing",
        "return self.status == codes.IDLE and not self.framer.passing",
    ),
    BrokenRule(
        "1",
        "a connection is released in the middle of a transaction",
        POOLING + "server.py",
        "return self.status == codes.IDLE and self.owed.nothing and not self.framer.passing",
        "return self.owed.nothing and not self.framer.passing",
    ),
    BrokenRule(
        "1",
        "a connection is released in a failed transaction",
        POOLING + "server.py",
        "return self.status == codes.IDLE and self.owed.nothing",
        "return self.status != codes.IN_TRANSACTION and self.owed.nothing",
    ),
    BrokenRule(
        "1",
        "a connection is released while a COPY is open",
        POOLING + "owed.py",
        "return not self.requests and not self.copy_in and not self.skipping and not self.doubt",
        "return not self.requests and not self.skipping and not self.doubt",
    ),
    BrokenRule(
        "1",
        "a connection is released while the server skips to a Sync",
        POOLING + "owed.py",
        "return not self.requests and not self.copy_in and not self.skipping and not self.doubt",
        "return not self.requests and not self.copy_in and not self.doubt",
    ),
    BrokenRule(
        "1",
        "a connection is released although nobody knows what is owed",
        POOLING + "owed.py",
        "return not self.requests and not self.copy_in and not self.skipping and not self.doubt",
        "return not self.requests and not self.copy_in and not self.skipping",
    ),
    BrokenRule(
        "1",
        "a connection is released while a part of a request is under way",
        POOLING + "client.py",
        "        elif self.framer.passing:\n            return\n",
        "",
    ),
    BrokenRule(
        "1",
        "a connection is cleaned and handed on while a cancel request for it is under way",
        POOLING + "cleaning.py",
        "elif server.owed.requests or server.cancels:",
        "elif server.owed.requests:",
    ),
    BrokenRule(
        "1",
        "a reply is owed only from the next request on",
        POOLING + "lease.py",
        "                server.owed.sent(kind)\n                if fate == PASS:",
        "                if framer.position + framer.length <= framer.end:\n                    server.owed.sent(kind)\n"
        "                if fate == PASS:",
    ),
    BrokenRule(
        "1",
        "a connection in doubt is handed on",
        POOLING + "cleaning.py",
        "        if server.owed.doubt or server.tainted:\n            self.doom",
        "        if server.tainted:\n            self.doom",
    ),
    BrokenRule(
        "1",
        "the pool takes back whatever comes",
        POOLING + "pool.py",
        "        if not server.releasable or server.tainted:",
        "        if server.tainted:",
    ),
    BrokenRule(
        "1",
        "a Sync sent into an open COPY is forgotten when the COPY fails",
        POOLING + "owed.py",
        '        if self.swallowed:\n            self.doubt = "a COPY failed with a Sync already sent into it"\n',
        "",
    ),
    BrokenRule(
        "1",
        "after an error a batch is answered up to its end",
        POOLING + "owed.py",
        "            while requests and requests[0] != SYNC:",
        "            while requests and requests[0] == SYNC:",
    ),
    # -- 2: modes ------------------------------------------------------------------------------------------------------
    BrokenRule(
        "2",
        "session mode gives the connection back after each transaction",
        POOLING + "client.py",
        "elif self.mode is PoolMode.SESSION or server.state",
        "elif server.state",
    ),
    BrokenRule(
        "2",
        "transaction mode keeps the connection to the end of the session",
        POOLING + "client.py",
        "elif self.mode is PoolMode.SESSION or server.state",
        "elif self.mode is not PoolMode.STATEMENT or server.state",
    ),
    BrokenRule(
        "2",
        "statement mode lets transaction blocks be",
        POOLING + "lease.py",
        "if client.mode is PoolMode.STATEMENT else None",
        "if client.mode is PoolMode.SESSION else None",
    ),
    BrokenRule(
        "2",
        "statement mode passes on what follows a request that is not answered",
        POOLING + "lease.py",
        "        return self._blocks is not None and server.owed.ready_due",
        "        return False",
    ),
    BrokenRule(
        "2",
        "statement mode does not roll back the block it refuses",
        POOLING + "client.py",
        '                server.ask("ROLLBACK")  # now',
        '                server.ask("")  # now',
    ),
    BrokenRule(
        "2",
        "statement mode forwards ReadyForQuery before the rollback",
        POOLING + "blocks.py",
        "            server.lease.pass_on_run()\n            framer.drop()\n            self._refuse(now)",
        "            framer.pass_on()\n            server.lease.pass_on_run()\n            self._refuse(now)",
    ),
    BrokenRule(
        "2",
        "statement mode answers before the rollback",
        POOLING + "blocks.py",
        "            server.refuse_block(now)\n",
        "            self._client.port.write_all(self._refusal)\n            server.refuse_block(now)\n",
    ),
    BrokenRule(
        "2",
        "statement mode forwards the tag of a refused BEGIN",
        POOLING + "blocks.py",
        "if kind == codes.COMMAND_COMPLETE and framer.body() in BEGUN:",
        "if False:",
    ),
    BrokenRule(
        "2",
        "statement mode runs what was sent behind a refused block",
        POOLING + "blocks.py",
        "if client.held or not client.framer.at_boundary():",
        "if False:",
    ),
    BrokenRule(
        "2",
        "statement mode looks at no failed block",
        POOLING + "blocks.py",
        "if kind == codes.READY_FOR_QUERY and server.status != codes.IDLE:",
        "if kind == codes.READY_FOR_QUERY and server.status == codes.IN_TRANSACTION:",
    ),
    # -- 3: cleaning ---------------------------------------------------------------------------------------------------
    BrokenRule(
        "3",
        "policy always does not clean",
        POOLING + "cleaning.py",
        "        if route.reset_policy is ResetPolicy.ALWAYS:\n            return route.reset_statement\n",
        "",
    ),
    BrokenRule(
        "3",
        "policy smart does not clean although there is evidence",
        POOLING + "cleaning.py",
        "if route.reset_policy is ResetPolicy.NEVER or not left:",
        "if True:",
    ),
    BrokenRule(
        "3",
        "policy smart cleans without evidence",
        POOLING + "cleaning.py",
        "if route.reset_policy is ResetPolicy.NEVER or not left:",
        "if route.reset_policy is ResetPolicy.NEVER:",
    ),
    BrokenRule(
        "3",
        "policy never cleans",
        POOLING + "cleaning.py",
        "if route.reset_policy is ResetPolicy.NEVER or not left:",
        "if not left:",
    ),
    BrokenRule(
        "3",
        "prepared statements outlive the cleaning that they need",
        POOLING + "cleaning.py",
        'return KEEPING_PLANS + ("; DEALLOCATE ALL" if left & evidence.PREPARED else "")',
        "return KEEPING_PLANS",
    ),
    BrokenRule(
        "3",
        "a reply that reports a changed parameter is no evidence",
        POOLING + "session_state.py",
        '        """The server reported a parameter while it served the client."""\n'
        "        self.left |= evidence.CLEANING",
        '        """The server reported a parameter while it served the client."""',
    ),
    BrokenRule(
        "3",
        "tags are no evidence",
        POOLING + "session_state.py",
        "if bits and (tag != ",
        "if False and (tag != ",
    ),
    BrokenRule(
        "3",
        "the text is no evidence",
        POOLING + "evidence/__init__.py",
        "return NOTHING if is_plain(text) else of_every_statement(text)",
        "return NOTHING",
    ),
    BrokenRule(
        "3",
        "an unknown tag is harmless",
        POOLING + "evidence/__init__.py",
        'NOTHING if head == b"CREATE" else CLEANING)',
        "NOTHING)",
    ),
    BrokenRule(
        "3",
        "a text too long to be read is harmless",
        POOLING + "session_state.py",
        "UNREAD = evidence.CLEANING | evidence.UNREAD",
        "UNREAD = evidence.NOTHING",
    ),
    BrokenRule(
        "3",
        "a call through the function-call protocol is harmless",
        POOLING + "session_state.py",
        "        if kind == codes.FUNCTION_CALL:\n            self.left |= evidence.CLEANING\n        elif",
        "        if",
    ),
    BrokenRule(
        "3",
        "a connection with a loaded library is cleaned and used again",
        POOLING + "cleaning.py",
        "if self._server.lease.session_state.left & evidence.LOADED:",
        "if False:",
    ),
    BrokenRule(
        "3",
        "evidence is forgotten when the lease ends",
        POOLING + "session_state.py",
        "        self._doubts = self._lasting = self.pins = 0\n",
        "        self._doubts = self._lasting = self.pins = self.left = 0\n",
    ),
    BrokenRule(
        "3",
        "a transaction is not rolled back before the session is cleaned",
        POOLING + "cleaning.py",
        '        elif server.status != codes.IDLE:\n            server.ask("ROLLBACK")\n',
        "",
    ),
    BrokenRule(
        "3",
        "a connection whose cleaning failed is used again",
        POOLING + "server.py",
        '        elif error is not None:\n            self.close(f"{asked} failed: {error.message}", now)\n',
        "",
    ),
    # -- 4: order ------------------------------------------------------------------------------------------------------
    BrokenRule(
        "4",
        "idle connections are a queue",
        POOLING + "pool.py",
        "self._lease(self.idle.pop(), client, now)",
        "self._lease(self.idle.pop(0), client, now)",
    ),
    BrokenRule(
        "4",
        "waiters are a stack",
        POOLING + "pool.py",
        "            client, _ = self.waiters.popitem(last=False)\n            self._lease(server, client, now)",
        "            client, _ = self.waiters.popitem(last=True)\n            self._lease(server, client, now)",
    ),
    BrokenRule(
        "4",
        "a new client overtakes those who wait",
        POOLING + "pool.py",
        "if self.idle and not self.waiters:",
        "if self.idle:",
    ),
    BrokenRule(
        "4",
        "a connection that comes back is not given to a waiter",
        POOLING + "pool.py",
        "        if self.waiters:\n            client, _",
        "        if False:\n            client, _",
    ),
    BrokenRule(
        "4",
        "the youngest waiter times out",
        POOLING + "pool.py",
        "            client, _ = self.waiters.popitem(last=False)\n            client.refuse(self._waited_too_long(), now)",
        "            client, _ = self.waiters.popitem(last=True)\n            client.refuse(self._waited_too_long(), now)",
    ),
    BrokenRule(
        "4",
        "waiters do not time out",
        POOLING + "pool.py",
        "while wait and self.waiters and now >= self.first_wait + wait:",
        "while False:",
    ),
    BrokenRule(
        "4",
        "waiters whose pool has no connection and gets none are lost",
        POOLING + "pool.py",
        "                client, _ = self.waiters.popitem(last=False)\n                client.refuse(error, now)",
        "                self.waiters.popitem(last=False)",
    ),
    BrokenRule(
        "4",
        "a busy connection goes to another pool at once",
        POOLING + "backend_use.py",
        "if other is None or now - other.first_wait < FAIRNESS_DELAY or now - self.last_transfer < FAIRNESS_DELAY:",
        "if other is None or now - self.last_transfer < FAIRNESS_DELAY:",
    ),
    BrokenRule(
        "4",
        "busy connections go to another pool one after the other",
        POOLING + "backend_use.py",
        "if other is None or now - other.first_wait < FAIRNESS_DELAY or now - self.last_transfer < FAIRNESS_DELAY:",
        "if other is None or now - other.first_wait < FAIRNESS_DELAY:",
    ),
    BrokenRule(
        "4",
        "a pool keeps its busy connections for ever",
        POOLING + "backend_use.py",
        "if other is None or now - other.first_wait",
        "if True or now - other.first_wait",
    ),
    BrokenRule(
        "4",
        "idle connections of another pool are not taken",
        POOLING + "backend_use.py",
        "idle = [pool.idle[0] for pool in self.pools if pool.idle and pool is not wanting]",
        "idle = [pool.idle[0] for pool in self.pools if False]",
    ),
    BrokenRule(
        "4",
        "the warmest connection makes room for another pool",
        POOLING + "backend_use.py",
        "oldest = min(idle, key=lambda server: server.idle_since)",
        "oldest = max(idle, key=lambda server: server.idle_since)",
    ),
    # -- 5: limits -----------------------------------------------------------------------------------------------------
    BrokenRule(
        "5",
        "a pool has one connection more than its size",
        POOLING + "pool.py",
        "return 0 < (self.limit if self.reserve_open else self.route.pool_size) <= self.size",
        "return 0 < (self.limit if self.reserve_open else self.route.pool_size) < self.size",
    ),
    BrokenRule(
        "5",
        "the reserve is always open",
        POOLING + "pool.py",
        "return 0 < (self.limit if self.reserve_open else self.route.pool_size) <= self.size",
        "return 0 < self.limit <= self.size",
    ),
    BrokenRule(
        "5",
        "a backend has one connection more than its cap",
        POOLING + "backend_use.py",
        "return 0 < self.backend.pool_size <= self.used",
        "return 0 < self.backend.pool_size < self.used",
    ),
    BrokenRule(
        "5",
        "connections that are being opened do not count",
        POOLING + "pool.py",
        "return len(self.idle) + len(self.busy) + self.opening",
        "return len(self.idle) + len(self.busy)",
    ),
    BrokenRule(
        "5",
        "one client too many is let in",
        POOLING + "service.py",
        "if 0 < limit <= self.admitted:",
        "if 0 < limit < self.admitted:",
    ),
    BrokenRule(
        "5",
        "one client of a user or a database too many is let in",
        POOLING + "service.py",
        "if 0 < limit <= count[name]:",
        "if 0 < limit < count[name]:",
    ),
    BrokenRule(
        "5",
        "one waiter too many",
        POOLING + "pool.py",
        "if 0 < self.route.max_queue < len(self.waiters) - self.opening:",
        "if 0 < self.route.max_queue < len(self.waiters) - self.opening - 1:",
    ),
    BrokenRule(
        "5",
        "min_pool_size is not kept",
        POOLING + "pool.py",
        "return self.route.min_pool_size if self.clients else 0",
        "return 0",
    ),
    BrokenRule(
        "5",
        "the place of a connection is free before its socket is closed",
        POOLING + "server.py",
        "        self.port.close()\n        self.service.server_closed(self, reason)\n        if state == LOGIN:",
        "        self.service.server_closed(self, reason)\n        if state == LOGIN:",
    ),
    # -- 6: login ------------------------------------------------------------------------------------------------------
    BrokenRule(
        "6",
        "a failed login to the server is not remembered",
        POOLING + "pool.py",
        "        self.failure = error\n        delay",
        "        delay",
    ),
    BrokenRule(
        "6",
        "clients are told of a failed login although it has been mended",
        POOLING + "pool.py",
        "        self.failure = None\n        self.failures = 0\n        self.retry_at = 0.0\n",
        "        self.failures = 0\n",
    ),
    BrokenRule(
        "6",
        "every client in transaction mode needs a server to log in",
        POOLING + "client.py",
        "known = None if needs_server else pool.known.get(self.settings)",
        "known = None",
    ),
    BrokenRule(
        "6",
        "settings that no server has seen are taken without one",
        POOLING + "client.py",
        "known = None if needs_server else pool.known.get(self.settings)",
        'known = None if needs_server else pool.known.get("")',
    ),
    BrokenRule(
        "6",
        "the route is found before the client has proved who it is",
        POOLING + "login.py",
        "        service.admit(client)\n        client.state = ClientState.AUTHENTICATION",
        "        service.admit(client)\n        service.pool_for(client, startup)\n"
        "        client.state = ClientState.AUTHENTICATION",
    ),
    BrokenRule(
        "6",
        "any password will do",
        POOLING + "access.py",
        "        if not right:\n            raise self.failed()\n",
        "",
    ),
    BrokenRule(
        "6",
        "any SCRAM proof will do",
        PROTOCOL + "scram.py",
        "if not equal(hashlib.sha256(client_key).digest(), verifier.stored_key):",
        "if False:",
    ),
    BrokenRule(
        "6",
        "a server need not prove that it knows the password",
        PROTOCOL + "scram.py",
        "if not equal(signature, self._server_signature):",
        "if False:",
    ),
    # -- 7: parameters -------------------------------------------------------------------------------------------------
    BrokenRule(
        "7",
        "a client gets the parameters of the one before",
        POOLING + "server.py",
        "if self.settings == client.settings:",
        "if True:",
    ),
    BrokenRule(
        "7",
        "parameters that differ are set on top of each other",
        POOLING + "server.py",
        'undo = "" if self.settings == "" else "RESET ALL"',
        'undo = ""',
    ),
    BrokenRule(
        "7",
        "a client is served although its parameters could not be set",
        POOLING + "server.py",
        "            client.refuse(error, now)\n        elif self.state == ASKING",
        "            self._go_on()\n            client.granted(now)\n        elif self.state == ASKING",
    ),
    # -- 9: pins -------------------------------------------------------------------------------------------------------
    BrokenRule(
        "9",
        "a pinned connection is given back",
        POOLING + "client.py",
        "        elif server.lease.session_state.pins:\n            self.release_hold(now)\n",
        "",
    ),
    BrokenRule(
        "9",
        "the server is not asked whether something pins the lease",
        POOLING + "client.py",
        "elif server.lease.session_state.unknown:",
        "elif False:",
    ),
    BrokenRule(
        "9",
        "a pin is for ever",
        POOLING + "session_state.py",
        "        if bits & evidence.RELEASING:\n            self._doubts |= self.pins\n",
        "",
    ),
    BrokenRule(
        "9",
        "a statement that may run again is looked at once",
        POOLING + "session_state.py",
        "            if self._lasting and kind == codes.EXECUTE:\n                self._doubts |= self._lasting\n",
        "",
    ),
    BrokenRule(
        "9",
        "one lease too many is pinned",
        POOLING + "session_state.py",
        "            if len(pool.pinned) < self._route.pinned_limit:",
        "            if len(pool.pinned) <= self._route.pinned_limit:",
    ),
    BrokenRule(
        "9",
        "policy error lets everything be",
        POOLING + "session_state.py",
        "if self._policy is SessionStatePolicy.ERROR:",
        "if False:",
    ),
    BrokenRule(
        "9",
        "a server that does not answer pins nothing",
        POOLING + "session_state.py",
        "else [TRUE] * len(self._asked)",
        "else []",
    ),
    BrokenRule(
        "9",
        "a place among the pinned is not given back",
        POOLING + "session_state.py",
        "            self._server.pool.pinned.discard(self._server)\n\n    def cleaned",
        "            pass\n\n    def cleaned",
    ),
    # -- 10: cancel ----------------------------------------------------------------------------------------------------
    BrokenRule(
        "10",
        "any key will do for a cancel request",
        POOLING + "cancel.py",
        "return self._clients.get((process_id, cancel_key))",
        "return next((client for (number, _), client in self._clients.items() if number == process_id), None)",
    ),
    BrokenRule(
        "10",
        "a cancel request reaches a server that runs nothing for its client",
        POOLING + "service.py",
        "if client is None or client.server is None or not client.cancel():",
        "if client is None or client.server is None:",
    ),
    BrokenRule(
        "10",
        "a client that waits is not canceled",
        POOLING + "service.py",
        "            client.cancel_waiting(now)\n",
        "",
    ),
    BrokenRule(
        "10",
        "a cancel request that was sent is not waited for",
        POOLING + "service.py",
        "        server.cancels += 1\n",
        "        server.cancels += 0\n",
    ),
    BrokenRule(
        "10",
        "a cancel request that ended in an unknown way counts as settled",
        POOLING + "server.py",
        "        if not settled:\n            self.tainted",
        "        if False:\n            self.tainted",
    ),
    BrokenRule(
        "10",
        "the key of a client that is gone still works",
        POOLING + "service.py",
        "        self.cancels.forget(client.process_id, client.cancel_key)\n",
        "",
    ),
    BrokenRule(
        "10",
        "a long key in protocol 3.0",
        POOLING + "cancel.py",
        "length = CANCEL_KEY_3_2 if version >= codes.PROTOCOL_3_2 else codes.CANCEL_KEY_3_0",
        "length = CANCEL_KEY_3_2",
    ),
    BrokenRule(
        "10",
        "in session mode the client is told another process id than the server's",
        POOLING + "client.py",
        "self._welcome(server.parameters, server.process_id)",
        "self._welcome(server.parameters, self.number & 0x7FFFFFFF)",
    ),
    # -- 11: disconnects -----------------------------------------------------------------------------------------------
    BrokenRule(
        "11",
        "a query runs on after its client broke off",
        POOLING + "client.py",
        'self.close(f"client disconnected without Terminate ({reason})", now, abrupt=True)',
        'self.close(f"client disconnected without Terminate ({reason})", now, abrupt=False)',
    ),
    BrokenRule(
        "11",
        "Terminate cancels what was asked before",
        POOLING + "client.py",
        "            if server.owed.complete:\n                self.leaving = True\n            else:\n"
        "                self.depart(now)",
        "            self.close('', now, abrupt=True)",
    ),
    BrokenRule(
        "11",
        "a server that got half a message is used again",
        POOLING + "cleaning.py",
        '        if in_part:\n            return "its client left in the middle of a message"\n',
        "",
    ),
    BrokenRule(
        "11",
        "requests without their Sync are committed when the client leaves",
        POOLING + "cleaning.py",
        "        if owed.open_batch:\n            return",
        "        if False:\n            return",
    ),
    BrokenRule(
        "11",
        "a COPY is ended as if all data had come when the client leaves",
        POOLING + "cleaning.py",
        "        if owed.copy_in:\n            return",
        "        if False:\n            return",
    ),
    BrokenRule(
        "11",
        "a cancel request that came before its query is not repeated",
        POOLING + "cleaning.py",
        "            self._cancel_again_at = now + CANCEL_AGAIN\n",
        "",
    ),
    # -- 12: server connections ----------------------------------------------------------------------------------------
    BrokenRule(
        "12",
        "a server that refuses is asked again at once",
        POOLING + "pool.py",
        "            if now < self.retry_at:\n",
        "            if False:\n",
    ),
    BrokenRule(
        "12",
        "the pause between attempts does not grow",
        POOLING + "pool.py",
        "delay = min(FIRST_RETRY * 2**self.failures, LAST_RETRY)",
        "delay = FIRST_RETRY",
    ),
    BrokenRule(
        "12",
        "the pause between attempts grows without end",
        POOLING + "pool.py",
        "delay = min(FIRST_RETRY * 2**self.failures, LAST_RETRY)",
        "delay = FIRST_RETRY * 2**self.failures",
    ),
    BrokenRule(
        "12",
        "quiet connections are not probed",
        POOLING + "pool.py",
        "            server.probe(now)\n",
        "            pass\n",
    ),
    BrokenRule(
        "12",
        "connections that age are handed out again",
        POOLING + "pool.py",
        '        if server.expired(now):\n            return "server_lifetime is over"\n',
        "",
    ),
    BrokenRule(
        "12",
        "idle connections stay for ever",
        POOLING + "pool.py",
        '                server.close("server_idle_timeout", now)',
        "                pass",
    ),
    BrokenRule(
        "12",
        "a server's last error is not told to its client",
        POOLING + "server.py",
        "            self.farewell = is_last_error(framer.body())\n",
        "",
    ),
    BrokenRule(
        "12",
        "half a Bind may hold a server for ever",
        POOLING + "timeouts.py",
        "return client.framer.passing > 0 or server.owed.copy_in or not server.owed.ready_due",
        "return server.owed.copy_in or not server.owed.ready_due",
    ),
    # -- the way of the bytes ------------------------------------------------------------------------------------------
    BrokenRule(
        "bytes",
        "a client that does not read does not slow its server down",
        POOLING + "lease.py",
        "            if not client.port.write(framer.buffer, framer.mark, framer.position):\n"
        "                server.port.pause()",
        "            client.port.write(framer.buffer, framer.mark, framer.position)",
    ),
    BrokenRule(
        "bytes",
        "a server that does not read does not slow its client down",
        POOLING + "lease.py",
        "            if not self._server.port.write(framer.buffer, framer.mark, framer.position):\n"
        "                client.port.pause()",
        "            self._server.port.write(framer.buffer, framer.mark, framer.position)",
    ),
    BrokenRule(
        "bytes",
        "a server whose client left is not read",
        POOLING + "server.py",
        "        self.port.resume()\n        self.cleaning",
        "        self.cleaning",
    ),
    BrokenRule(
        "bytes",
        "an error of ours goes out in the middle of a message",
        POOLING + "client.py",
        'last_words = b"" if self.server is not None and self.server.last_word_said else fatal(error)',
        "last_words = fatal(error)",
    ),
    BrokenRule(
        "bytes",
        "the loss of a server is told in the middle of a message",
        POOLING + "server.py",
        "client.server_lost(None if silent else self._lost(reason), now)",
        "client.server_lost(self._lost(reason), now)",
    ),
    BrokenRule(
        "bytes",
        "a startup packet may be of any length",
        PROTOCOL + "framer.py",
        "if size < 8 or size > limit:",
        "if size < 8:",
    ),
    BrokenRule(
        "bytes",
        "a message may be longer than PostgreSQL allows",
        PROTOCOL + "framer.py",
        "if size < 4 or size > LONGEST:",
        "if size < 4:",
    ),
    BrokenRule(
        "bytes",
        "a password may be of any length",
        PROTOCOL + "framer.py",
        "        if self.length - 1 > limit:\n",
        "        if False:\n",
    ),
)


def mutants(modules: Mapping[str, str]) -> list[Mutant]:
    """Make the mutants.  Raises ValueError for a rule whose text is not, or not once, in its module."""
    return [_mutant(rule, modules[rule.path]) for rule in RULES]


def _mutant(rule: BrokenRule, text: str) -> Mutant:
    if text.count(rule.before) != 1:
        raise ValueError(f"{rule.path} holds {text.count(rule.before)} times what rule {rule.name!r} changes")
    source = text.replace(rule.before, rule.after)
    module = Module(rule.path, text)
    start = len(text[: text.index(rule.before)].encode())
    last = module.line_at(start + len(rule.before.rstrip("\n").encode()) - 1)
    lines = tuple(range(module.line_at(start), last + 1))
    return Mutant(rule.path, f"rule {rule.anchor}: {rule.name}", text, source, lines, at_import=module.outside(lines))
