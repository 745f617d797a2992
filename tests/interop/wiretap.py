#!/usr/bin/env python3
"""Listens on a wire of the edge: what somebody between it and a peer would hear and read.

  wiretap.py INTERFACE WAV JSON [IP]

Every RTP packet is taken for G.711 in the clear, in the order in which it came, whichever way
it went, or from one address alone. At SIGTERM the audio is written, and how many packets there
were, the longest time without one, and how many frames held a start line of SIP."""

import ipaddress
import json
import re
import signal
import socket
import struct
import sys
import time

import ears

ULAW = []
for code in range(256):
    flipped = ~code & 0xFF
    value = (((flipped & 0x0F) << 3) + 0x84) << ((flipped & 0x70) >> 4)
    ULAW.append(0x84 - value if flipped & 0x80 else value - 0x84)
SIP = re.compile(rb"SIP/2\.0")


def main(interface, wav, counts, only=None):
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind((interface, 0))
    tap.settimeout(0.5)
    running = True

    def leave(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, leave)
    print("ready", flush=True)
    heard, packets, readable, last, longest = [], 0, 0, None, 0.0
    only = ipaddress.ip_address(only).packed if only else None
    while running:
        try:
            frame = tap.recv(65535)
        except TimeoutError:
            continue
        if frame[12:14] == b"\x08\x00":
            head, protocol, source = 14 + (frame[14] & 15) * 4, frame[23], frame[26:30]
        elif frame[12:14] == b"\x86\xdd":
            head, protocol, source = 54, frame[20], frame[22:38]
        else:
            continue
        readable += bool(SIP.search(frame[head:]))
        if protocol != socket.IPPROTO_UDP or (only and source != only):
            continue
        data = frame[head + 8 :]
        ports = struct.unpack("!HH", frame[head : head + 4])
        # RTP has even ports, and 160 samples with or without a tag.
        if ports[0] % 2 == ports[1] % 2 == 0 and len(data) >= 172 and data[0] == 0x80 and data[1] & 0x7F == 0:
            now = time.monotonic()
            longest = max(longest, now - (last or now))
            last = now
            packets += 1
            heard.extend(ULAW[byte] for byte in data[12:172])
    ears.write(wav, heard)
    json.dump({"packets": packets, "readable": readable, "longest_gap_ms": round(longest * 1000)}, open(counts, "w", encoding="utf-8"))


if __name__ == "__main__":
    main(*sys.argv[1:])
