#!/usr/bin/env python3
"""A voice agent that says back what it hears, frame by frame, on as many calls as come: what a
caller hears of its own numbered frames went through the edge in both directions.

  echo_agent.py IP PORT LOG"""

import asyncio
import json
import os
import signal
import sys
import time

import ws


async def serve(log, reader, writer):
    try:
        socket = await ws.accept(reader, writer)
    except ws.Closed:
        return  # Somebody looked whether the port is open.
    stream = None
    note = lambda what: log.write(json.dumps({"at_ms": round(time.time() * 1000), "what": what, "stream": stream}) + "\n")
    try:
        while True:
            message = json.loads(await socket.receive())
            match message.get("event"):
                case "start":
                    stream = message["streamSid"]
                    note("start")
                case "media":
                    media = {"payload": message["media"]["payload"]}
                    await socket.send(json.dumps({"event": "media", "streamSid": stream, "media": media}))
                case "stop":
                    note("stop")
                    break
    except (ws.Closed, OSError):
        note("closed")
    finally:
        await socket.close()


async def main(ip, port, path):
    log = open(path, "w", encoding="utf-8", buffering=1)
    server = await asyncio.start_server(lambda reader, writer: serve(log, reader, writer), ip, int(port), limit=1 << 20)
    leave = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leave.set)
    await leave.wait()
    server.close()
    # Connections that are still open end with the process.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
