#!/usr/bin/env python3
"""voice_agent.py with a fault for each call but the first, in the order in which the calls
come: until the file GO is there, it takes connections and never shakes hands; after that the
faults of FAULTS. A call that comes back after its fault is hung up on. Each is one line of
the log, with the call.

  bad_agent.py IP PORT WAV LOG GO"""

import asyncio
import json
import os
import signal
import socket
import struct
import sys
import types

import ears
import voice_agent
import ws

# What happens, and whether it has asked for a person before.
FAULTS = (
    ("stalls", False),
    ("drips", False),
    ("garbage", False),
    ("resets", False),
    ("stalls", True),
    ("drips", True),
    ("garbage", True),
    ("resets", True),
)
# It talks for so long first: the disclosure is played, and then the caller hears it.
TALKS_S = 8


class Told:
    """The start of a stream, read once here and once more by the agent."""

    def __init__(self, socket, first):
        self.socket, self.first = socket, first

    async def receive(self):
        return self.first.pop(0) if self.first else await self.socket.receive()

    def __getattr__(self, name):
        return getattr(self.socket, name)


class Bad:
    def __init__(self, ip, port, wav, log, go):
        self.ip, self.port, self.wav, self.go = ip, port, wav, go
        options = types.SimpleNamespace(log=log, talk=0, transfer=False, garbage=False)
        self.good = voice_agent.Agent(options)
        self.calls = []

    async def serve(self, reader, writer):
        try:
            # A look whether the port is open says nothing.
            if not await reader.read(1):
                return
            # The handshake's first byte was the G of its method, which nobody looks at.
            if self.calls and not os.path.exists(self.go):
                self.good.note("fault", fault="no handshake")
                await asyncio.sleep(600)
            link = await ws.accept(reader, writer)
            told = [await link.receive(), await link.receive()]
            call = json.loads(told[1])["start"]["customParameters"].get("edge_call_id")
            if call in self.calls:
                self.good.note("back", call=call)
                writer.transport.abort()
                return
            self.calls.append(call)
            if len(self.calls) == 1:
                await self.healthy(link, told)
            elif len(self.calls) <= len(FAULTS) + 1:
                await self.faulty(link, writer, told, call, *FAULTS[len(self.calls) - 2])
        except (ws.Closed, OSError):
            pass

    async def healthy(self, link, told):
        accept = ws.accept
        stream = Told(link, told)

        async def accepted(*_):
            ws.accept = accept
            return stream

        ws.accept = accepted
        await self.good.serve(None, None)

    async def faulty(self, link, writer, told, call, fault, asks):
        stream = json.loads(told[1])["streamSid"]
        talking = asyncio.create_task(self.good.speak(link, stream))
        # Pings are answered and audio is taken, until it is over.
        hearing = asyncio.create_task(self.hear(link))
        await asyncio.sleep(TALKS_S)
        if asks:
            turn = {"speaker": "caller", "text": "Please let me talk to a real person.", "confidence": 0.95}
            await self.good.signal(link, "turn", turn)
            await self.good.signal(link, "transfer.request", {"reason": "caller_request", "summary": "Asks for a person."})
            await asyncio.sleep(1)
        talking.cancel()
        hearing.cancel()
        self.good.note("fault", fault=fault, asked=asks, call=call)
        if fault == "drips":
            for byte in b"\x81\x7e\x10\x00" + b"{" * 600:
                await link.raw(bytes([byte]))
                await asyncio.sleep(1)
        elif fault == "garbage":
            await link.raw(os.urandom(100_000))
        elif fault == "resets":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        await asyncio.sleep(600)

    async def hear(self, link):
        while True:
            await link.receive()


async def main(arguments):
    bad = Bad(*arguments)
    server = await asyncio.start_server(bad.serve, bad.ip, int(bad.port), limit=1 << 20)
    leave = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)
    await leave.wait()
    server.close()
    ears.write(bad.wav, bad.good.heard)
    bad.good.log.flush()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
