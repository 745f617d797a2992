#!/usr/bin/env python3
"""A voice agent for a great many calls: it says half a second of a tone, and on each tenth call
asks for a person a second later.

  soak_agent.py IP PORT LOG"""

import asyncio
import base64
import json
import os
import signal
import sys

import ears
import ws

ONE_IN = 10


async def say(socket, stream):
    tone = bytes(ears.encode(x) for x in ears.sine(650, ears.RATE))
    for start in range(0, 4000, 160):
        media = {"payload": base64.b64encode(tone[start : start + 160]).decode()}
        await socket.send(json.dumps({"event": "media", "streamSid": stream, "media": media}))
    await socket.send(json.dumps({"event": "mark", "streamSid": stream, "mark": {"name": "first-words"}}))


async def ask(socket):
    await asyncio.sleep(1)
    turn = {"speaker": "caller", "text": "Please let me talk to a real person.", "confidence": 0.95}
    for number, (kind, data) in enumerate([("turn", turn), ("transfer.request", {"reason": "caller_request"})]):
        body = {"v": 1, "id": f"s-{number}", "type": kind, "data": data}
        await socket.send(json.dumps({"event": "agent.signal", "signal": body}))


class Agent:
    def __init__(self, path):
        self.log = open(path, "w", encoding="utf-8", buffering=1)
        self.calls = 0
        self.asking = set()

    async def serve(self, reader, writer):
        try:
            socket = await ws.accept(reader, writer)
        except ws.Closed:
            return  # Somebody looked whether the port is open.
        number = 0
        try:
            while True:
                message = json.loads(await socket.receive())
                match message.get("event"):
                    case "start":
                        self.calls += 1
                        number = self.calls
                        await say(socket, message["streamSid"])
                    case "mark":
                        # Its words were heard, so the disclosure was, too.
                        if number % ONE_IN == 0:
                            self.log.write(json.dumps({"what": "asks"}) + "\n")
                            task = asyncio.create_task(ask(socket))
                            self.asking.add(task)
                            task.add_done_callback(self.asking.discard)
                    case "stop":
                        break
        except (ws.Closed, OSError):
            pass
        finally:
            await socket.close()


async def main(ip, port, path):
    agent = Agent(path)
    server = await asyncio.start_server(agent.serve, ip, int(port), limit=1 << 20)
    leave = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leave.set)
    await leave.wait()
    server.close()
    # Connections that are still open end with the process.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
