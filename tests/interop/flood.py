#!/usr/bin/env python3
"""Junk at a rate: what scanners send, requests with one wound, octets of chance, and RTP of a
stranger to the media ports. All of it is made before the first is sent, from a seed that it
prints; then it is sent on the clock. It writes when it began and ended, and how many it sent.

  flood.py HOST SIP_PORT RTP_FIRST RTP_LAST SEED RATE SECONDS LOG"""

import json
import random
import socket
import sys
import time

import garbage

# As many different ones; they come again.
KINDS = 3000
# Sent at once before the clock is asked.
BURST = 20

SCAN = (
    "OPTIONS sip:{n}@{host} SIP/2.0\r\nVia: SIP/2.0/UDP 10.77.0.9:5060;branch=z9hG4bK{n};rport\r\nMax-Forwards: 70\r\n"
    "From: <sip:{n}@1.1.1.1>;tag={n}\r\nTo: <sip:{n}@{host}>\r\nCall-ID: {n}\r\nCSeq: 1 {method}\r\n"
    "User-Agent: {agent}\r\nContact: <sip:{n}@10.77.0.9>\r\nContent-Length: 0\r\n\r\n"
)
AGENTS = ["friendly-scanner", "sipvicious", "sipcli/v1.8", "VaxSIPUserAgent/3.1", "pplsip", "a softphone"]
METHODS = ["OPTIONS", "REGISTER", "INVITE"]


def scan(chance, host, number):
    """A question of a scanner, or a guess at a name."""
    method = chance.choice(METHODS)
    text = SCAN.format(n=number, host=host, method=method, agent=chance.choice(AGENTS))
    return text.replace("OPTIONS", method, 1).encode()


def pool(chance, host, sip_port, first, last):
    made = []
    for number in range(KINDS):
        kind = number % 4
        if kind == 0:
            made.append((scan(chance, host, number), (host, sip_port)))
        elif kind == 1:
            made.append((garbage.broken_sip(chance, host, sip_port, number), (host, sip_port)))
        elif kind == 2:
            made.append((chance.randbytes(chance.randrange(1, 1400)), (host, sip_port)))
        else:
            made.append((garbage.broken_rtp(chance), (host, chance.randrange(first, last + 2))))
    return made


def main(host, sip_port, first, last, seed, rate, seconds, path):
    print(f"seed {seed}")
    packets = pool(random.Random(seed), host, sip_port, first, last)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    counts = {"began_ms": round(time.time() * 1000), "sent": 0, "refused": 0}
    start = time.monotonic()
    number = 0
    while (passed := time.monotonic() - start) < seconds:
        if number >= passed * rate:
            time.sleep(0.001)
            continue
        for _ in range(BURST):
            packet, to = packets[number % KINDS]
            number += 1
            try:
                udp.sendto(packet, to)
                counts["sent"] += 1
            except OSError:
                counts["refused"] += 1  # A closed port answers with ICMP; a full queue drops.
    counts["ended_ms"] = round(time.time() * 1000)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(counts, file)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:8]), sys.argv[8])
