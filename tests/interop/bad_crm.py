#!/usr/bin/env python3
"""CRMs that do not behave, one on each port from FIRST: takes the request and says nothing;
answers at a byte a second; answers without end; sends away to the port behind the last, where
nobody may come; hangs up in the middle of its answer. One line for each request.

  bad_crm.py IP FIRST LOG"""

import asyncio
import sys

MODES = ("stalls", "drips", "huge", "redirects", "resets")


async def serve(mode, away, log, reader, writer):
    log.write(f"{mode}\n")
    try:
        if mode != "stalls":
            await reader.readuntil(b"\r\n\r\n")
        if mode == "stalls":
            await asyncio.sleep(600)
        elif mode == "drips":
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"popped\":true}":
                if writer.is_closing():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(1)
        elif mode == "huge":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"x" * 65536)
                await writer.drain()
        elif mode == "redirects":
            writer.write(f"HTTP/1.1 307 Go\r\nLocation: {away}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
        elif mode == "resets":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Len")
            await writer.drain()
            writer.transport.abort()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def main(ip, first, path):
    log = open(path, "w", encoding="utf-8", buffering=1)
    away = f"http://{ip}:{int(first) + len(MODES)}/"
    servers = []
    for at, mode in enumerate([*MODES, "away"]):

        def attend(reader, writer, mode=mode):
            return serve(mode, away, log, reader, writer)

        servers.append(await asyncio.start_server(attend, ip, int(first) + at))
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
