#!/usr/bin/env python3
"""Peers that take their time, on every listener of the edge at once: they say nothing, say one
byte a second, stop in the middle, never come to an end, or ask and do not read. For each it
is written how many connections there were and how many of them the edge ended.

  slow.py IP SECONDS DESKTOP_TOKEN WALL_TOKEN EDGE_PID LOG"""

import asyncio
import base64
import json
import os
import socket
import sys
import time

import ws

OPTIONS = (
    "OPTIONS sip:edge@{ip} SIP/2.0\r\nVia: SIP/2.0/TCP 10.77.0.9;branch=z9hG4bKslow\r\nMax-Forwards: 70\r\n"
    "From: <sip:x@10.77.0.9>;tag=s\r\nTo: <sip:edge@{ip}>\r\nCall-ID: slow\r\nCSeq: 1 OPTIONS\r\nContent-Length: {length}\r\n\r\n"
)
# All that one stranger gets of SIP's connections and some more, and half of HTTP's.
SIP_SILENT, HTTP_IDLE = 300, 1000


class Slow:
    def __init__(self, ip, seconds, desktop, wall):
        self.ip, self.until = ip, time.monotonic() + seconds
        self.desktop, self.wall = desktop, wall
        self.counts = {}

    def left(self):
        return self.until - time.monotonic()

    async def gone(self, reader):
        """Whether the edge ends the connection before the time is up; what it says is dropped."""
        try:
            while await asyncio.wait_for(reader.read(65536), max(self.left(), 0.1)):
                pass
        except asyncio.TimeoutError:
            return False
        except OSError:
            pass
        return True

    async def deaf(self, name, port, asks):
        """Asks and reads nothing, not even that the connection is gone: at the end it tries."""
        count, loop = self.counts.setdefault(name, {"opened": 0, "ended": 0}), asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
            tcp.setblocking(False)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(tcp, (self.ip, port))
            count["opened"] += 1
            asking = asyncio.create_task(loop.sock_sendall(tcp, asks))
            await asyncio.sleep(max(self.left() - 2, 0.1))
            gone = asking.done() and asking.exception() is not None
            asking.cancel()
            try:
                tcp.send(b"x")
            except BlockingIOError:
                pass
            except OSError:
                gone = True
            await asyncio.sleep(1)
            count["ended"] += gone or tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    async def one(self, name, port, first=b"", drip=b""):
        """One connection: says `first`, then `drip` byte by byte, a byte a second."""
        count = self.counts.setdefault(name, {"opened": 0, "ended": 0})
        try:
            reader, writer = await asyncio.open_connection(self.ip, port)
        except OSError:
            return
        count["opened"] += 1
        try:
            writer.write(first)

            async def dripping():
                for byte in drip:
                    await asyncio.sleep(1)
                    writer.write(bytes([byte]))

            dripped = asyncio.create_task(dripping())
            ended = await self.gone(reader)
            count["ended"] += ended
            dripped.cancel()
        except OSError:
            count["ended"] += 1
        finally:
            writer.transport.abort()

    async def page(self, name, first=b"", drip=b""):
        """A desktop page that is let in, and then does not behave."""
        count = self.counts.setdefault(name, {"opened": 0, "ended": 0})
        bearer = base64.urlsafe_b64encode(self.desktop.encode()).decode().rstrip("=")
        page = await ws.connect(self.ip, 8080, "/v1/desktop/ws", ["warmbridge.desktop.v1", f"bearer.{bearer}"])
        count["opened"] += 1
        try:
            page.writer.write(first)

            async def dripping():
                for byte in drip:
                    await asyncio.sleep(1)
                    page.writer.write(bytes([byte]))

            dripped = asyncio.create_task(dripping())
            # Raw bytes are taken, and no ping is answered.
            ended = await self.gone(page.reader)
            count["ended"] += ended
            dripped.cancel()
        finally:
            page.writer.transport.abort()

    async def run(self):
        options = OPTIONS.format(ip=self.ip, length=0).encode()
        half = OPTIONS.format(ip=self.ip, length=100).encode() + b"half"
        endless = b"OPTIONS sip:a@b SIP/2.0\r\n" + b"X-More: and more\r\n" * 5000
        get = f"GET /desktop/app.js HTTP/1.1\r\nHost: {self.ip}\r\n\r\n".encode()
        token = f"Authorization: Bearer {self.desktop}\r\n"
        post = f"POST /v1/transfers/xfer_1/decline HTTP/1.1\r\nHost: {self.ip}\r\n{token}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
        events = f"GET /v1/events HTTP/1.1\r\nHost: {self.ip}\r\nAuthorization: Bearer {self.wall}\r\n\r\n"
        text = bytes([0x81, 0x80 | 100]) + bytes(104)
        everything = [
            *(self.one("SIP, a byte a second", 5060, drip=options) for _ in range(5)),
            *(self.one("SIP, half a message", 5060, half) for _ in range(5)),
            *(self.one("SIP, a head without end", 5060, endless) for _ in range(5)),
            *(self.one("HTTP, a head at a byte a second", 8080, drip=get) for _ in range(5)),
            *(self.one("HTTP, a body at a byte a second", 8080, post.encode(), drip=b" " * 100) for _ in range(5)),
            *(self.deaf("HTTP, asks and does not read", 8080, get * 2000) for _ in range(20)),
            *(self.deaf("HTTP, events that nobody reads", 8080, events.encode()) for _ in range(3)),
            self.page("page, a byte a second", drip=text),
            self.page("page, half a message", text[:20]),
            self.page("page, never answers a ping"),
        ]
        many = [
            *(self.one("SIP, says nothing", 5060) for _ in range(SIP_SILENT)),
            *(self.one("HTTP, says nothing", 8080) for _ in range(HTTP_IDLE)),
        ]
        first = [asyncio.create_task(some) for some in everything]
        await asyncio.sleep(1)
        await asyncio.gather(*first, *(asyncio.create_task(some) for some in many))


async def watched(pid, until, log):
    """The most descriptors and memory that the edge ever had meanwhile."""
    while until() > 0:
        status = open(f"/proc/{pid}/status", encoding="utf-8").read()
        log["fds"] = max(log.get("fds", 0), len(os.listdir(f"/proc/{pid}/fd")))
        log["rss_kb"] = max(log.get("rss_kb", 0), int(status.split("VmRSS:")[1].split()[0]))
        await asyncio.sleep(0.5)


async def main(ip, seconds, desktop, wall, pid, path):
    slow, most = Slow(ip, float(seconds), desktop, wall), {}
    watch = asyncio.create_task(watched(pid, slow.left, most))
    await slow.run()
    watch.cancel()
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"counts": slow.counts, "most": most}, file)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
