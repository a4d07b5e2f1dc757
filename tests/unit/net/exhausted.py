"""Run as a program: a listener in a process that may have few files open.  Says on standard output what happens."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import sys

from pgpooler.net.connector import Connector
from pgpooler.net.listener import Listener
from pgpooler.net.relay import Relay
from pgpooler.pooling.access import Access
from pgpooler.pooling.deadlines import Deadlines
from pgpooler.pooling.service import Service
from tests.memory import configure

FILES = 40


async def serve() -> None:
    loop = asyncio.get_running_loop()
    configuration = configure()
    deadlines = Deadlines()
    relay = Relay(loop, deadlines)
    service = Service(configuration, Access(configuration.auth), Connector(loop, relay), deadlines)
    listening = socket.create_server(("127.0.0.1", 0), backlog=200)
    listener = Listener(loop, relay, service, listening)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    print("port", listening.getsockname()[1], flush=True)
    # Whoever started this says when it is over.
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    listener.close()
    listener.close()
    relay.close()


logging.basicConfig(stream=sys.stdout, format="%(message)s")
asyncio.run(serve())
