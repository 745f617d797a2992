#!/usr/bin/env python3
"""Bad weather on a line: a relay between two Ethernet ends that loses, delays, overtakes and
doubles what is UDP, SIP and RTP alike, and passes everything else. Neither end can tell it
from a cable, so no address is rewritten. The same seed draws the same fates, datagram by
datagram and direction by direction. At SIGTERM it writes as JSON what it did.

  weather.py NEAR FAR STATS --loss PERCENT --jitter MS --double PERCENT --seed N"""

import argparse
import heapq
import json
import random
import select
import signal
import socket
import struct
import time

ETH_P_ALL, IPV4, UDP = 0x0003, 0x0800, 17
# What an AF_PACKET socket says of a frame that left by it.
OUTGOING = 4
# Above it is media, below it signalling: lib.sh gives RTP the ports from 20000.
MEDIA_FROM = 10000
# Far more than is ever on the line at once.
WAITING_MAX = 10_000


class Direction:
    """One way of the line."""

    def __init__(self, seed, out):
        # RTP comes by the clock and SIP does not: a fate of its own for each keeps both repeatable.
        self.chances = {kind: random.Random(f"{seed} {kind}") for kind in ("sip", "rtp")}
        self.out = out
        self.latest = {"sip": 0.0, "rtp": 0.0}
        self.counts = {kind: {"came": 0, "lost": 0, "doubled": 0, "overtook": 0} for kind in ("sip", "rtp")}


def datagram(frame):
    """Where the UDP header of this frame begins, if it has one."""
    if len(frame) < 42 or struct.unpack_from("!H", frame, 12)[0] != IPV4 or frame[23] != UDP:
        return None
    # A fragment behind the first has no header.
    if struct.unpack_from("!H", frame, 20)[0] & 0x1FFF:
        return None
    return 14 + 4 * (frame[14] & 0x0F)


def end(name):
    line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    line.bind((name, 0))
    line.setblocking(False)
    return line


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("near")
    parser.add_argument("far")
    parser.add_argument("stats")
    parser.add_argument("--loss", type=float, default=0)
    parser.add_argument("--jitter", type=float, default=0)
    parser.add_argument("--double", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    near, far = end(options.near), end(options.far)
    ways = {near: Direction(f"{options.seed} out", far), far: Direction(f"{options.seed} in", near)}
    running = True

    def leave(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    waiting, number = [], 0
    print("ready", flush=True)
    while running:
        wait = max(waiting[0][0] - time.monotonic(), 0) if waiting else 0.5
        for line in select.select([near, far], [], [], wait)[0]:
            frame, (_, _, kind, _, _) = line.recvfrom(65_535)
            if kind == OUTGOING:
                continue
            way, at = ways[line], datagram(frame)
            now = time.monotonic()
            if at is None:
                heapq.heappush(waiting, (now, number, way.out, frame))
                number += 1
                continue
            media = max(struct.unpack_from("!HH", frame, at)) >= MEDIA_FROM
            name = "rtp" if media else "sip"
            chance, counts = way.chances[name], way.counts[name]
            # Between two namespaces checksums are left to hardware that there is not; zero is none.
            frame = frame[: at + 6] + b"\0\0" + frame[at + 8 :]
            lost, double = chance.random() * 100 < options.loss, chance.random() * 100 < options.double
            delays = [chance.random() * options.jitter / 1000 for _ in range(2)]
            counts["came"] += 1
            counts["lost"] += lost
            if lost:
                continue
            counts["doubled"] += double
            for delay in delays[: 2 if double else 1]:
                due = now + delay
                counts["overtook"] += due < way.latest[name]
                way.latest[name] = max(way.latest[name], due)
                if len(waiting) < WAITING_MAX:
                    heapq.heappush(waiting, (due, number, way.out, frame))
                number += 1
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, out, frame = heapq.heappop(waiting)
            try:
                out.send(frame)
            except OSError:
                pass  # The end is gone, or its queue is full: weather.
    with open(options.stats, "w", encoding="utf-8") as file:
        json.dump({"to_edge": ways[near].counts, "from_edge": ways[far].counts}, file)


if __name__ == "__main__":
    main()
