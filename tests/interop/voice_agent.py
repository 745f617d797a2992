#!/usr/bin/env python3
"""A scripted voice agent behind a WebSocket, in the Twilio Media Streams dialect. It speaks a
650 Hz tone in real time, knows from the echoed mark when its first words were heard, says
what it understood in signals, asks for a person, and keeps what it hears.

  voice_agent.py IP PORT WAV LOG [--talk SECONDS] [--transfer] [--garbage]

`--talk` is how long it goes on after its first words; `--garbage` mixes broken and far too
many messages into its speech."""

import argparse
import asyncio
import base64
import json
import os
import signal
import time

import ears
import ws

FRAME = 160


class Agent:
    def __init__(self, options):
        self.options = options
        self.log = open(options.log, "w", encoding="utf-8", buffering=1)
        self.heard = []
        self.count = 0
        self.done = asyncio.Event()

    def note(self, what, **more):
        self.log.write(json.dumps({"at_ms": round(time.time() * 1000), "what": what, **more}) + "\n")

    async def serve(self, reader, writer):
        try:
            socket = await ws.accept(reader, writer)
        except ws.Closed:
            return  # Somebody looked whether the port is open.
        first = json.loads(await socket.receive())
        second = json.loads(await socket.receive())
        if first.get("event") != "connected" or second.get("event") != "start":
            self.note("bad start", got=[first.get("event"), second.get("event")])
            return
        stream = second["streamSid"]
        form = second["start"]["mediaFormat"]
        self.note("start", stream=stream, format=form, call=second["start"]["customParameters"].get("edge_call_id"))
        played = asyncio.Event()
        script = asyncio.create_task(self.script(socket, stream, played))
        try:
            while True:
                message = json.loads(await socket.receive())
                match message.get("event"):
                    case "media":
                        audio = base64.b64decode(message["media"]["payload"])
                        self.heard += [ears.DECODE[byte] for byte in audio]
                    case "mark":
                        self.note("mark", name=message["mark"]["name"])
                        played.set()
                    case "edge.status":
                        self.note("status", status=message.get("status"))
                    case "stop":
                        self.note("stop")
                        break
                    case other:
                        self.note("message", event=other, text=json.dumps(message)[:300])
        except ws.Closed as error:
            self.note("closed", why=str(error))
        finally:
            script.cancel()
            await socket.close()
            self.done.set()

    async def signal(self, socket, kind, data):
        self.count += 1
        body = {"v": 1, "id": f"s-{self.count}", "type": kind, "data": data}
        await socket.send(json.dumps({"event": "agent.signal", "signal": body}))

    async def script(self, socket, stream, played):
        speech = asyncio.create_task(self.speak(socket, stream))
        try:
            await asyncio.wait_for(played.wait(), 30)
            await self.signal(socket, "turn", {"speaker": "agent", "text": "Hello, how can I help you today?"})
            await self.signal(
                socket,
                "turn",
                {"speaker": "caller", "text": "I would like to know when the clinic opens.", "confidence": 0.94},
            )
            await self.signal(socket, "intent", {"name": "clinic.opening_hours", "confidence": 0.92})
            await self.signal(socket, "field", {"name": "patient_name", "value": "Sam Marsh", "confidence": 0.9})
            if self.options.garbage:
                await self.garbage(socket, stream)
            await asyncio.sleep(self.options.talk)
            if self.options.transfer:
                self.note("transfer.request")
                turn = {"speaker": "caller", "text": "Please let me talk to a real person.", "confidence": 0.95}
                await self.signal(socket, "turn", turn)
                asks = {"reason": "caller_request", "summary": "The caller asks for a person about opening hours."}
                await self.signal(socket, "transfer.request", asks)
        except (ws.Closed, asyncio.TimeoutError, OSError) as error:
            self.note("script ended", why=repr(error))
        finally:
            # It talks until it is sent away: what the edge does with that is the test.
            try:
                await speech
            except (ws.Closed, OSError, asyncio.CancelledError):
                speech.cancel()

    async def speak(self, socket, stream):
        """650 Hz, 20 ms at a time, on the clock."""
        tone = bytes(ears.encode(x) for x in ears.sine(650, ears.RATE))
        due, sent = time.monotonic(), 0
        while True:
            start = sent * FRAME % ears.RATE
            payload = base64.b64encode((tone + tone)[start : start + FRAME]).decode()
            media = {"event": "media", "streamSid": stream, "media": {"payload": payload}}
            await socket.send(json.dumps(media))
            sent += 1
            if sent == 25:
                mark = {"event": "mark", "streamSid": stream, "mark": {"name": "first-words"}}
                await socket.send(json.dumps(mark))
            due += 0.02
            await asyncio.sleep(max(due - time.monotonic(), 0))

    async def garbage(self, socket, stream):
        self.note("garbage")
        broken = [
            "",
            "{",
            "null",
            "[]",
            '"media"',
            '{"event":7}',
            '{"event":"media"}',
            '{"event":"media","media":{"payload":"%%%"}}',
            '{"event":"mark","mark":{"name":"' + "m" * 5000 + '"}}',
            '{"event":"agent.signal"}',
            '{"event":"agent.signal","signal":{"v":99,"id":"x","type":"turn","data":{}}}',
            '{"event":"agent.signal","signal":{"v":1,"id":"x","type":"turn","data":{"speaker":"nobody","text":7}}}',
            '{"event":"agent.signal","signal":{"v":1,"id":"x","type":"transfer.request","data":{"reason":"because"}}}',
            "[" * 20_000,
            "{" + '"a":{' * 20_000,
            "\u0000" * 1000,
            "x" * 400_000,
        ]
        for text in broken:
            await socket.send(text)
            await asyncio.sleep(0.05)
        for number in range(3000):
            await socket.send(broken[number % 13])
        for number in range(3000):
            await self.signal(socket, "intent", {"name": f"flood.{number}", "confidence": 0.9})
        self.note("garbage sent")


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ip")
    parser.add_argument("port", type=int)
    parser.add_argument("wav")
    parser.add_argument("log")
    parser.add_argument("--talk", type=float, default=3)
    parser.add_argument("--transfer", action="store_true")
    parser.add_argument("--garbage", action="store_true")
    agent = Agent(parser.parse_args())
    server = await asyncio.start_server(agent.serve, agent.options.ip, agent.options.port, limit=1 << 20)
    leave = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leave.set)
    await leave.wait()
    server.close()
    ears.write(agent.options.wav, agent.heard)
    agent.log.flush()
    # Connections that are still open end with the process.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
