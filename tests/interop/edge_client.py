#!/usr/bin/env python3
"""The edge's side of the voice agent's dialect, for testing the voice agent: opens a stream,
sends 450 Hz, echoes marks when they are played, and wants 650 Hz and a transfer request.

  edge_client.py HOST PORT"""

import asyncio
import base64
import json
import sys

import ears
import ws


async def main(host, port):
    socket = await ws.connect(host, int(port), "/media")
    sid = "MZ" + "0" * 32
    form = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    start = {"callSid": "CA", "streamSid": sid, "customParameters": {"edge_call_id": "call_1"}, "mediaFormat": form}
    await socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
    await socket.send(json.dumps({"event": "start", "sequenceNumber": "1", "streamSid": sid, "start": start}))
    tone = bytes(ears.encode(x) for x in ears.sine(450, ears.RATE))

    async def talk():
        for number in range(10_000):
            at = number * 160 % ears.RATE
            payload = base64.b64encode((tone + tone)[at : at + 160]).decode()
            await socket.send(json.dumps({"event": "media", "streamSid": sid, "media": {"payload": payload}}))
            await asyncio.sleep(0.02)

    talking = asyncio.create_task(talk())
    heard, signals = [], []
    while "transfer.request" not in signals:
        message = json.loads(await asyncio.wait_for(socket.receive(), 10))
        if message["event"] == "media":
            heard += [ears.DECODE[byte] for byte in base64.b64decode(message["media"]["payload"])]
        elif message["event"] == "mark":
            await socket.send(json.dumps({"event": "mark", "streamSid": sid, "mark": message["mark"]}))
        elif message["event"] == "agent.signal":
            signals.append(message["signal"]["type"])
    await asyncio.sleep(2)
    talking.cancel()
    await socket.send(json.dumps({"event": "stop", "streamSid": sid, "stop": {}}))
    assert ears.heard(heard, 650) >= 10, ears.heard(heard, 650)
    assert signals[:4] == ["turn", "turn", "intent", "field"], signals


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
