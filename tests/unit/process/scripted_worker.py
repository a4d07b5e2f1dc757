"""A worker process that misbehaves as PGPOOLER_TEST_SCRIPT says: what the supervisor must survive.

Words of the script, done in order; a word behind `message:` is done when that message arrives, instead of the answer a
good worker would give:  exit  hang  garbage  refuse  flood  ignore  unasked
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
import time

from pgpooler.config.choices import LogLevel
from pgpooler.process import control, logs

ANSWERS: dict[type, control.Message] = {
    control.Start: control.Ready(implementation="scripted"),
    control.Reload: control.Reloaded(notes=("a note of the worker",)),
    control.Pause: control.Paused(in_use=3),
    control.Resume: control.Resumed(),
    control.Drain: control.Drained(closed=2),
    control.SnapshotRequest: control.Snapshot(values={}),
}
LAST = (control.Drain, control.Stop)
FLOOD = 20_000


async def serve(descriptor: int, script: dict[str, str]) -> None:
    endpoint = socket.socket(fileno=descriptor)
    raw = endpoint.dup()
    channel = await control.Channel.open(endpoint)
    logs.install(logs.ChannelHandler(channel), LogLevel.DEBUG)
    async for request in channel:
        name = type(request.message).__name__
        action = script.get(name, "")
        logging.getLogger("scripted").info("got %s", name)
        if action == "exit":
            sys.exit(7)
        elif action == "hang":
            time.sleep(3600)
        elif action == "garbage":
            raw.setblocking(True)
            raw.sendall(b"\xff\xff\xff\xff garbage")
            await asyncio.sleep(3600)
        elif action == "refuse":
            await request.answer(control.Failed(message=f"{name} is refused by the script"))
            continue
        elif action == "ignore":
            continue
        elif action == "unasked":
            await channel.send(control.Drained())
        elif action == "flood":
            for number in range(FLOOD):
                logging.getLogger("scripted").info("line %d %s", number, "x" * 500)
        if type(request.message) in ANSWERS:
            await request.answer(ANSWERS[type(request.message)])
        if isinstance(request.message, LAST):
            break
    await channel.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--listen-fds")
    arguments = parser.parse_args()
    lines = os.environ.get("PGPOOLER_TEST_SCRIPT", "").split()
    asyncio.run(serve(arguments.control_fd, dict(line.split(":") for line in lines)))
