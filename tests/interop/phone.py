"""A telephone: enough of SIP (RFC 3261) over UDP to call, to be called and to hang up, also
on a line that loses what it sends, and RTP both ways every 20 ms. It shares no code with the
edge and believes nothing of it: what it was told is in `log`, with the time. As a program it
is one phone for one call; its audio is the business of an rtp_peer.py at the same address.

  phone.py calls|answers IP[:PORT] EDGE_IP:PORT AUDIO_PORT LOG [RING]

It calls, or answers after so many seconds of ringing, and hangs up at SIGTERM. One JSON line for
each thing it was told."""

import asyncio
import json
import re
import secrets
import signal
import struct
import sys
import time


# What a softphone needs to show and to sound a call.
RING_AFTER = 0.1
# Timers T1 and T2 of RFC 3261: a request goes out again until it is answered, for 64 T1.
RESEND_FIRST, RESEND_MOST, RESEND_FOR = 0.5, 4, 32


def headers(text):
    head, _, body = text.partition("\r\n\r\n")
    start, *lines = head.split("\r\n")
    fields = [tuple(part.strip() for part in line.split(":", 1)) for line in lines if ":" in line]
    return start, fields, body


def get(fields, name):
    return next((value for key, value in fields if key.lower() == name), "")


class Udp(asyncio.DatagramProtocol):
    def __init__(self, taken):
        self.taken = taken

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.taken(data, address)


class Phone:
    """`number` calls as a carrier would; without one it waits to be called. With an
    `audio_port` somebody else talks and listens there."""

    def __init__(self, ip, port, edge, number=None, audio_port=None):
        self.ip, self.port, self.edge, self.number = ip, port, edge, number
        self.audio_port = audio_port
        self.transport = "UDP"
        self.log = []
        self.changed = asyncio.Event()
        self.call = None
        self.packets = 0
        self.on_invite = None

    async def start(self):
        loop = asyncio.get_running_loop()
        self.sip, _ = await loop.create_datagram_endpoint(lambda: Udp(self._sip), local_addr=(self.ip, self.port))
        self.port = self.sip.get_extra_info("sockname")[1]
        self.rtp_port = self.audio_port
        if self.audio_port is None:
            self.rtp, _ = await loop.create_datagram_endpoint(lambda: Udp(self._rtp), local_addr=(self.ip, 0))
            self.rtp_port = self.rtp.get_extra_info("sockname")[1]
            self.talk = asyncio.create_task(self._talk())

    def names(self):
        """What its Via and its Contact say."""
        return f"{self.ip}:{self.port}", f"<sip:{self.number or 'desk'}@{self.ip}:{self.port}>"

    def stop(self):
        self.sip.close()
        if self.audio_port is None:
            self.talk.cancel()
            self.rtp.close()

    def note(self, what):
        self.log.append((time.time(), what))
        self.changed.set()

    def when(self, what):
        return next((at for at, noted in self.log if noted == what), None)

    async def hears(self, what, seconds=20, after=0):
        """Waits until it was told so, more than `after` times."""
        deadline = time.monotonic() + seconds
        while sum(1 for _, noted in self.log if noted == what) <= after:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{self.ip} was never told {what}: {[noted for _, noted in self.log]}")
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), left)
            except asyncio.TimeoutError:
                pass

    def sdp(self, direction="sendrecv"):
        return (
            f"v=0\r\no=- 1 {secrets.randbelow(1 << 30)} IN IP4 {self.ip}\r\ns=-\r\nc=IN IP4 {self.ip}\r\nt=0 0\r\n"
            f"m=audio {self.rtp_port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
            f"a=ptime:20\r\na={direction}\r\n"
        )

    def _send(self, start, lines, body=""):
        kind = ["Content-Type: application/sdp"] if body else []
        text = "\r\n".join([start, *lines, *kind, f"Content-Length: {len(body)}", "", body])
        if not self.sip.is_closing():  # A phone that was put away still has a timer to ring by.
            self.sip.sendto(text.encode(), self.edge)
        return text.encode()

    def _request(self, method, cseq, body=""):
        call = self.call
        sent_by, contact = self.names()
        return self._send(
            f"{method} {call['target']} SIP/2.0",
            [
                f"Via: SIP/2.0/{self.transport} {sent_by};rport;branch=z9hG4bK{secrets.token_hex(8)}",
                "Max-Forwards: 70",
                f"From: {call['local']}",
                f"To: {call['remote']}",
                f"Call-ID: {call['id']}",
                f"CSeq: {cseq} {method}",
                f"Contact: {contact}",
            ],
            body,
        )

    def _answer(self, fields, status, body="", tag=""):
        copied = [f"{key}: {value}" for key, value in fields if key.lower() in ("via", "from", "call-id", "cseq")]
        contact = f"Contact: {self.names()[1]}"
        self._send(f"SIP/2.0 {status}", [*copied, f"To: {get(fields, 'to')}{tag}", contact], body)

    def dial(self):
        domain = f"{self.edge[0]}:{self.edge[1]}"
        self.call = {
            "id": secrets.token_hex(12),
            "local": f"<sip:{self.number}@{self.ip}>;tag={secrets.token_hex(6)}",
            "remote": f"<sip:+18005550100@{domain}>",
            "target": f"sip:+18005550100@{domain}",
            "cseq": 1,
        }
        self._insist(self._request("INVITE", 1, self.sdp()), "INVITE")

    def answer(self):
        """Takes the call that rings."""
        self._answer(self.call["invite"], "200 OK", self.sdp(), self.call["tag"])

    def hang_up(self):
        self.call["cseq"] += 1
        self._insist(self._request("BYE", self.call["cseq"]), "BYE")

    def _insist(self, request, method):
        """Sends it again until there is an answer to it, or nobody would answer any more."""

        async def again():
            answered, wait, end = f" {method}", RESEND_FIRST, time.monotonic() + RESEND_FOR
            while time.monotonic() < end:
                await asyncio.sleep(wait)
                if self.sip.is_closing() or any(re.match(r"\d", what) and what.endswith(answered) for _, what in self.log):
                    return
                self.sip.sendto(request, self.edge)
                wait = min(2 * wait, RESEND_MOST)

        self.insisting = asyncio.create_task(again())

    def _sip(self, data, _):
        start, fields, body = headers(data.decode("utf-8", "replace"))
        if start.startswith("SIP/2.0"):
            return self._response(int(start.split()[1]), fields, body)
        return self._requested(start.split()[0], fields, body)

    def _response(self, status, fields, body):
        if status >= 200 and get(fields, "cseq").endswith("INVITE"):
            self.call["remote"] = get(fields, "to")
            contact = re.search(r"<([^>]+)>", get(fields, "contact"))
            if contact:
                self.call["target"] = contact.group(1)
            self._request("ACK", 1)
            self._media(body)
        self.note(f"{status} {get(fields, 'cseq').split()[-1]}")

    def _requested(self, method, fields, body):
        tagged = ";tag=" in get(fields, "to")
        if method == "INVITE" and not tagged:
            if self.call and self.call.get("id") == get(fields, "call-id"):
                return  # Sent again.
            if self.on_invite:
                self.on_invite()
            tag = f";tag={secrets.token_hex(6)}"
            contact = re.search(r"<([^>]+)>", get(fields, "contact"))
            self.call = {
                "id": get(fields, "call-id"),
                "invite": fields,
                "tag": tag,
                "local": get(fields, "to") + tag,
                "remote": get(fields, "from"),
                "target": contact.group(1),
                "cseq": 1,
            }
            self._media(body)
            asyncio.get_running_loop().call_later(RING_AFTER, self._ring)
        elif method == "INVITE":
            self._media(body)
            held = re.search(r"a=(sendonly|inactive)", body)
            self._answer(fields, "200 OK", self.sdp("recvonly" if held else "sendrecv"))
            self.note("held" if held else "taken back")
        elif method == "CANCEL":
            self._answer(fields, "200 OK")
            self._answer(self.call["invite"], "487 Request Terminated", tag=self.call["tag"])
            self.call = None
        elif method in ("BYE", "OPTIONS", "INFO"):
            self._answer(fields, "200 OK")
            if method == "BYE":
                self.call = None
        self.note(method)

    def _ring(self):
        if self.call and "invite" in self.call:
            self._answer(self.call["invite"], "180 Ringing", tag=self.call["tag"])
            self.note("180")

    def _media(self, sdp):
        ip = re.search(r"c=IN IP4 (\S+)", sdp)
        port = re.search(r"m=audio (\d+)", sdp)
        if ip and port:
            self.call["media"] = (ip.group(1), int(port.group(1)))
            self.note(f"media {port.group(1)}")

    def _rtp(self, _data, _address):
        self.packets += 1

    async def _talk(self):
        """A quiet line, 20 ms at a time."""
        sequence, source = secrets.randbelow(1 << 15), secrets.randbelow(1 << 32)
        due = time.monotonic()
        while True:
            media = (self.call or {}).get("media")
            if media:
                packet = struct.pack("!BBHII", 0x80, 0, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, source)
                self.rtp.sendto(packet + b"\xfe" * 160, media)
            sequence += 1
            due += 0.02
            await asyncio.sleep(max(due - time.monotonic(), 0))


async def main(role, ip, edge, audio_port, path, ring="1"):
    host, _, port = edge.rpartition(":")
    calls = role == "calls"
    ip, _, own_port = ip.partition(":")
    phone = Phone(ip, int(own_port or 5060), (host, int(port)), "+15555550142" if calls else None, int(audio_port))
    log = open(path, "w", encoding="utf-8", buffering=1)
    told, note = phone.note, lambda what: log.write(json.dumps({"at_ms": round(time.time() * 1000), "what": what}) + "\n")
    phone.note = lambda what: (note(what), told(what))
    leave = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)
    await phone.start()
    note("ready")
    if calls:
        phone.dial()
    else:
        await phone.hears("180", 120)
        await asyncio.sleep(float(ring))
        phone.answer()
    await leave.wait()
    if phone.call:
        phone.hang_up()
        await phone.hears("200 BYE", RESEND_FOR)
    phone.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
