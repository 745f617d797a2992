#!/usr/bin/env python3
"""Judges what rtp_peer.py counted: one stream, no packet number missing, no gap that can be
heard. What the machine itself was late (idle.py) is added to the gap, and only a machine that
was late by five frames excuses a jump of the timestamp.

  unbroken.py STATS IDLE"""

import json
import sys

# Five packets: what a jitter buffer of a phone bridges.
GAP_MAX_MS = 100
# A tick that is later sends five frames at once and leaves the others out.
FRAMES_LEFT_OUT_MS = 100


def main(stats, idle):
    with open(stats, encoding="utf-8") as file:
        counts = json.load(file)
    with open(idle, encoding="utf-8") as file:
        stall = json.load(file)["stall_ms"]
    print(f"{counts['packets']} packets, longest gap {counts['longest_gap_ms']} ms, the machine was {stall} ms late")
    if counts["ssrcs"] != 1 or counts["seq_breaks"] or counts["longest_gap_ms"] > GAP_MAX_MS + stall:
        print(counts)
        return 1
    if counts["timestamp_breaks"] and stall < FRAMES_LEFT_OUT_MS:
        print(counts)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
