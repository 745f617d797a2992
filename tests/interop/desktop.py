#!/usr/bin/env python3
"""A human agent's page: shows what it is told and acknowledges a card once it is painted.
One JSON line for each message.

  desktop.py HOST PORT TOKEN LOG [ACCEPT_AFTER]

With ACCEPT_AFTER it takes the call so many seconds after it was shown."""

import asyncio
import base64
import json
import sys
import time

import ws

# Two frames of a 60 Hz display.
PAINT_S = 0.033


async def main(host, port, token, path, accept_after=None):
    log = open(path, "w", encoding="utf-8", buffering=1)

    def note(what, **more):
        log.write(json.dumps({"at_ms": round(time.time() * 1000), "what": what, **more}) + "\n")

    bearer = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    socket = await ws.connect(host, int(port), "/v1/desktop/ws", ["warmbridge.desktop.v1", f"bearer.{bearer}"])
    note("connected")

    async def accept(transfer):
        await asyncio.sleep(float(accept_after))
        await socket.send(json.dumps({"type": "accept", "transfer": transfer}))

    try:
        while True:
            message = json.loads(await socket.receive())
            kind = message.get("type")
            if kind in ("card", "accepted"):
                await asyncio.sleep(PAINT_S)
                ack = {"type": "ack", "transfer": message["transfer"], "revision": message["revision"]}
                await socket.send(json.dumps(ack))
            if kind == "incoming" and accept_after:
                asyncio.create_task(accept(message["offer"]["transfer"]))
            note(kind, transfer=message.get("transfer"), revision=message.get("revision"), reason=message.get("reason"))
    except ws.Closed as error:
        note("closed", why=str(error))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
