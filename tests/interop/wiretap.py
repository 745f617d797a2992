#!/usr/bin/env python3
"""Listens on a wire of the edge: what somebody between it and a peer would hear and read.

  wiretap.py INTERFACE WAV JSON

Every RTP packet is taken for G.711 in the clear, in the order in which it came, whichever way
it went. At SIGTERM the audio is written, and how many packets there were and how many frames
held a start line of SIP."""

import json
import re
import signal
import socket
import struct
import sys

import ears

ULAW = []
for code in range(256):
    flipped = ~code & 0xFF
    value = (((flipped & 0x0F) << 3) + 0x84) << ((flipped & 0x70) >> 4)
    ULAW.append(0x84 - value if flipped & 0x80 else value - 0x84)
SIP = re.compile(rb"SIP/2\.0")


def main(interface, wav, counts):
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind((interface, 0))
    tap.settimeout(0.5)
    running = True

    def leave(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, leave)
    print("ready", flush=True)
    heard, packets, readable = [], 0, 0
    while running:
        try:
            frame = tap.recv(65535)
        except TimeoutError:
            continue
        if frame[12:14] != b"\x08\x00":
            continue
        head = 14 + (frame[14] & 15) * 4
        if frame[23] == socket.IPPROTO_UDP:
            data = frame[head + 8 :]
            source, target = struct.unpack("!HH", frame[head : head + 4])
            # RTP has even ports, and 160 samples with or without a tag.
            if source % 2 == target % 2 == 0 and len(data) >= 172 and data[0] == 0x80 and data[1] & 0x7F == 0:
                packets += 1
                heard.extend(ULAW[byte] for byte in data[12:172])
        readable += bool(SIP.search(frame[head:]))
    ears.write(wav, heard)
    json.dump({"packets": packets, "readable": readable}, open(counts, "w", encoding="utf-8"))


if __name__ == "__main__":
    main(*sys.argv[1:])
