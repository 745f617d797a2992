"""The part of RFC 6455 that these tests need, both ends, on asyncio alone: text frames, ping
and close. It is a second implementation beside the edge's, so it shares no code with it."""

import asyncio
import base64
import hashlib
import os
import struct

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


class Closed(Exception):
    """The other side is gone."""


class Socket:
    def __init__(self, reader, writer, masks):
        self.reader, self.writer, self.masks = reader, writer, masks
        self.pings = 0

    async def send(self, text):
        await self._frame(TEXT, text.encode() if isinstance(text, str) else text)

    async def raw(self, data):
        """Bytes on the wire as they are, framed or not."""
        self.writer.write(data)
        await self.writer.drain()

    async def _frame(self, opcode, payload):
        head = bytes([0x80 | opcode])
        bit = 0x80 if self.masks else 0
        if len(payload) < 126:
            head += bytes([bit | len(payload)])
        elif len(payload) < 65536:
            head += bytes([bit | 126]) + struct.pack("!H", len(payload))
        else:
            head += bytes([bit | 127]) + struct.pack("!Q", len(payload))
        if self.masks:
            key = os.urandom(4)
            head += key
            payload = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
        try:
            self.writer.write(head + payload)
            await self.writer.drain()
        except OSError as error:
            raise Closed(str(error)) from error

    async def receive(self):
        """The next text message."""
        message = b""
        while True:
            try:
                first, second = await self.reader.readexactly(2)
                length = second & 0x7F
                if length == 126:
                    (length,) = struct.unpack("!H", await self.reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
                key = await self.reader.readexactly(4) if second & 0x80 else None
                payload = await self.reader.readexactly(length)
            except (asyncio.IncompleteReadError, OSError) as error:
                raise Closed(str(error)) from error
            if key:
                payload = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
            opcode = first & 0x0F
            if opcode == PING:
                self.pings += 1
                await self._frame(PONG, payload)
            elif opcode == CLOSE:
                raise Closed(payload[:2].hex())
            elif opcode != PONG:
                message += payload
                if first & 0x80:
                    return message.decode("utf-8", "replace")

    async def close(self):
        try:
            await self._frame(CLOSE, struct.pack("!H", 1000))
            self.writer.close()
        except (Closed, OSError):
            pass


async def _head(reader):
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
        raise Closed(str(error)) from error
    lines = text.split("\r\n")
    fields = dict(line.split(":", 1) for line in lines[1:] if ":" in line)
    return lines[0], {name.strip().lower(): value.strip() for name, value in fields.items()}


def _accept(key):
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


async def accept(reader, writer):
    """The server's side of the handshake."""
    _, fields = await _head(reader)
    answer = _accept(fields["sec-websocket-key"])
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {answer}\r\n\r\n".encode()
    )
    await writer.drain()
    return Socket(reader, writer, masks=False)


async def connect(host, port, path, protocols=(), tls=None):
    """The client's side of the handshake, inside TLS where there is a context for it."""
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    key = base64.b64encode(os.urandom(16)).decode()
    offered = f"Sec-WebSocket-Protocol: {', '.join(protocols)}\r\n" if protocols else ""
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n".encode()
    )
    await writer.drain()
    status, fields = await _head(reader)
    if " 101 " not in status or fields.get("sec-websocket-accept") != _accept(key):
        raise Closed(status)
    if protocols and fields.get("sec-websocket-protocol") not in protocols:
        raise Closed(f"the subprotocol is {fields.get('sec-websocket-protocol')}")
    return Socket(reader, writer, masks=True)
