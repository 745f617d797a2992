#!/usr/bin/env python3
"""Sends what no peer should: bytes of chance, broken SIP and broken RTP, from a seed that it
prints, as fast as it is told.

  garbage.py HOST SIP_PORT RTP_FIRST RTP_LAST SEED COUNT"""

import random
import socket
import struct
import sys
import time

# A pause after so many, or the sender's own socket drops them.
BURST = 50

GOOD = (
    "INVITE sip:+18005550100@{host}:{port} SIP/2.0\r\nVia: SIP/2.0/UDP 10.77.0.2:5071;branch=z9hG4bK{n}\r\n"
    "Max-Forwards: 70\r\nFrom: <sip:x@10.77.0.2>;tag=g{n}\r\nTo: <sip:y@{host}>\r\nCall-ID: g{n}\r\n"
    "CSeq: 1 INVITE\r\nContact: <sip:x@10.77.0.2:5071>\r\nContent-Type: application/sdp\r\nContent-Length: 0\r\n\r\n"
)


def broken_sip(chance, host, port, number):
    """A request with one wound."""
    message = bytearray(GOOD.format(host=host, port=port, n=number).encode())
    wound = chance.randrange(7)
    if wound == 0:
        return bytes(message[: chance.randrange(len(message))])
    if wound == 1:
        # A changed octet may leave an INVITE as good as it was, and a carrier's good INVITE
        # opens a call. That none of these does is part of the test, so this one asks less.
        message = bytearray(bytes(message).replace(b"INVITE", b"OPTIONS"))
        for _ in range(1 + chance.randrange(20)):
            message[chance.randrange(len(message))] = chance.randrange(256)
        return bytes(message)
    if wound == 2:
        return bytes(message).replace(b"CSeq: 1", b"CSeq: 99999999999999999999")
    if wound == 3:
        return bytes(message).replace(b"Content-Length: 0", b"Content-Length: -5")
    if wound == 4:
        return bytes(message).replace(b"Via:", b"Via: SIP/2.0/UDP ;;;;,\r\nVia:", 1)
    if wound == 5:
        return b"SIP/2.0 200 OK\r\n" + b"Via: SIP/2.0/UDP x\r\n" * 50 + b"\r\n"
    return bytes(message).replace(b"From:", b"From: " + b"<" * 500 + b"\r\nX:", 1)


def broken_rtp(chance):
    length = chance.randrange(0, 400)
    body = bytes(chance.randrange(256) for _ in range(length))
    if chance.random() < 0.5:
        # Well formed, of a stranger: only its source gives it away.
        head = struct.pack("!BBHII", 0x80, 0, chance.randrange(65536), chance.randrange(1 << 32), 7)
        return head + bytes(160)
    if chance.random() < 0.3:
        return struct.pack("!BBH", 0x80 | chance.randrange(32), 200 + chance.randrange(6), chance.randrange(65536)) + body
    return body


def main(host, sip_port, first, last, seed, count):
    chance = random.Random(seed)
    print(f"seed {seed}")
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    for number in range(count):
        kind = number % 3
        if kind == 0:
            packet, port = broken_sip(chance, host, sip_port, number), sip_port
        elif kind == 1:
            packet, port = bytes(chance.randrange(256) for _ in range(chance.randrange(1400))), sip_port
        else:
            packet, port = broken_rtp(chance), chance.randrange(first, last + 2)
        try:
            udp.sendto(packet, (host, port))
        except OSError:
            pass  # A closed port answers with ICMP; a full queue drops.
        if number % BURST == 0:
            time.sleep(0.01)
    # The same over TCP: a stream that never becomes a message.
    for number in range(20):
        try:
            with socket.create_connection((host, sip_port), 2) as tcp:
                tcp.sendall(broken_sip(chance, host, sip_port, number) + bytes(chance.randrange(256) for _ in range(3000)))
        except OSError:
            pass
    print(f"{count} datagrams and 20 streams sent")


if __name__ == "__main__":
    main(sys.argv[1], *(int(argument) for argument in sys.argv[2:]))
