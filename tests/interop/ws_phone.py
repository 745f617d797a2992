#!/usr/bin/env python3
"""A telephone as a page in a browser is one (RFC 7118): it opens a WebSocket, inside TLS or not,
asks for the subprotocol `sip`, registers with a digest over it under a name that resolves to
nothing, and is called over the same connection. Its audio is the business of an rtp_peer.py at
the same address.

  ws_phone.py URL CA_FILE IP USER PASSWORD AUDIO_PORT LOG RING HANG_UP

URL is ws://… or wss://…; CA_FILE is who a secure edge must be vouched for by, or `-`. It answers
after RING seconds and hangs up HANG_UP seconds later, if the other end did not do so before."""

import asyncio
import hashlib
import json
import re
import secrets
import ssl
import sys
import time
from urllib.parse import urlsplit

import phone
import ws

# Shorter than the registration asked for, as a phone refreshes it.
EXPIRES = 60


class Frames:
    """What phone.py takes for its socket: each message is a frame of its own."""

    def __init__(self, socket):
        self.socket, self.closing = socket, False

    def sendto(self, data, _edge):
        asyncio.get_running_loop().create_task(self.socket.send(data))

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True


class WsPhone(phone.Phone):
    def __init__(self, url, authority, ip, user, password, audio_port):
        parts = urlsplit(url)
        super().__init__(ip, 0, (parts.hostname, parts.port), None, audio_port)
        self.secure, self.authority, self.user, self.password = parts.scheme == "wss", authority, user, password
        self.transport = "WSS" if self.secure else "WS"
        # RFC 7118 section 5: a page knows no address of its own.
        self.sent_by = f"{secrets.token_hex(6)}.invalid"
        self.contact = f"<sip:{user}@{self.sent_by};transport=ws>"
        self.answers = asyncio.Queue()

    def names(self):
        return self.sent_by, self.contact

    async def start(self):
        context = None
        if self.secure:
            context = ssl.create_default_context(cafile=self.authority)
        self.socket = await ws.connect(*self.edge, "/", ("sip",), context)
        self.sip = Frames(self.socket)
        self.rtp_port = self.audio_port
        self.reading = asyncio.create_task(self._read())

    async def _read(self):
        try:
            while True:
                self._sip((await self.socket.receive()).encode(), None)
        except ws.Closed:
            self.note("connection closed")

    def _response(self, status, fields, body):
        if get(fields, "cseq").endswith("REGISTER"):
            self.answers.put_nowait((status, fields))
        super()._response(status, fields, body)

    async def register(self):
        """One registration: challenged, answered, accepted, and heard of over this connection."""
        own, tag, call = f"sip:{self.user}@{self.edge[0]}", secrets.token_hex(6), secrets.token_hex(12)
        proof = []
        for cseq in (1, 2):
            self._send(
                f"REGISTER sip:{self.edge[0]} SIP/2.0",
                [
                    f"Via: SIP/2.0/{self.transport} {self.sent_by};branch=z9hG4bK{secrets.token_hex(8)}",
                    "Max-Forwards: 70",
                    f"From: <{own}>;tag={tag}",
                    f"To: <{own}>",
                    f"Call-ID: {call}",
                    f"CSeq: {cseq} REGISTER",
                    f"Contact: {self.contact};expires={EXPIRES}",
                    *proof,
                ],
            )
            status, fields = await asyncio.wait_for(self.answers.get(), 5)
            if status == 401:
                proof = [self._proof(get(fields, "www-authenticate"), "REGISTER", f"sip:{self.edge[0]}")]
        if status != 200:
            raise SystemExit(f"the registration is refused with {status}")
        listed = get(fields, "contact")
        if self.sent_by not in listed:
            raise SystemExit(f"the registrar lists {listed}")

    def _proof(self, challenge, method, uri):
        values = dict(re.findall(r'(\w+)="?([^",]+)"?', challenge))
        digest = hashlib.md5 if values.get("algorithm", "MD5") == "MD5" else hashlib.sha256
        hashed = lambda text: digest(text.encode()).hexdigest()
        cnonce = secrets.token_hex(8)
        secret = hashed(f"{self.user}:{values['realm']}:{self.password}")
        answer = hashed(f"{secret}:{values['nonce']}:00000001:{cnonce}:auth:{hashed(f'{method}:{uri}')}")
        return (
            f'Authorization: Digest username="{self.user}", realm="{values["realm"]}", nonce="{values["nonce"]}", '
            f'uri="{uri}", response="{answer}", algorithm={values.get("algorithm", "MD5")}, qop=auth, nc=00000001, '
            f'cnonce="{cnonce}"'
        )

    async def keep_alive(self):
        """A double CRLF is answered by one (RFC 5626 section 4.4.1)."""
        await self.socket.send("\r\n\r\n")

    def _sip(self, data, address):
        if not data.strip():
            self.note("pong")
        else:
            super()._sip(data, address)


get = phone.get


async def main(url, authority, ip, user, password, audio_port, path, ring, hang_up):
    desk = WsPhone(url, None if authority == "-" else authority, ip, user, password, int(audio_port))
    log = open(path, "w", encoding="utf-8", buffering=1)
    told, note = desk.note, lambda what: log.write(json.dumps({"at_ms": round(time.time() * 1000), "what": what}) + "\n")
    desk.note = lambda what: (note(what), told(what))
    await desk.start()
    await desk.keep_alive()
    await desk.hears("pong", 5)
    await desk.register()
    note("registered")
    await desk.hears("180", 120)
    note("via " + get(desk.call["invite"], "via"))
    await asyncio.sleep(float(ring))
    desk.answer()
    await desk.hears("ACK", 5)
    try:
        await desk.hears("BYE", float(hang_up))
    except TimeoutError:
        desk.hang_up()
        await desk.hears("200 BYE", 5)
    note("pings " + str(desk.socket.pings))
    await desk.socket.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
