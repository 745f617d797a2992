#!/usr/bin/env python3
"""One end of an RTP stream: sends a tone in PCMU and keeps what it hears. It sends to the
address from which it is sent to, like a phone behind a carrier. At SIGTERM it writes a WAV in
which a lost packet is silence, and a JSON line of what it counted.

With --number each frame that it sends begins with the frame's number, in its counts are those
that it sent and those that it heard, and what it heard without one is not the other end's.

  rtp_peer.py BIND_IP PORT HZ WAV STATS [--to IP:PORT] [--number]"""

import json
import os
import select
import signal
import socket
import struct
import sys
import time

import ears

FRAME = 160
# SO_TIMESTAMPNS of Linux, which Python has no name for, and what it brings: a timespec.
TIMESTAMPNS, STAMP = 35, struct.Struct("@ll")
# Five minutes: no scenario is longer, and a runaway timestamp cannot fill the disk.
SAMPLES_MAX = 5 * 60 * ears.RATE
# A number is four hexadecimal digits, each a sample of moderate loudness: a decoder and an
# encoder in between bring each of these back as it was.
DIGIT = 0x40


def numbered(payload, number):
    return bytes(DIGIT | number >> shift & 0xF for shift in (12, 8, 4, 0)) + payload[4:]


def number_of(audio):
    digits = audio[:4]
    if len(digits) < 4 or any(digit & 0xF0 != DIGIT for digit in digits):
        return None
    return int("".join(f"{digit & 0xF:x}" for digit in digits), 16)


def main(arguments):
    ip, port, hz, wav, stats = arguments[0], int(arguments[1]), float(arguments[2]), arguments[3], arguments[4]
    remote = None
    if "--to" in arguments:
        host, _, number = arguments[arguments.index("--to") + 1].rpartition(":")
        remote = (host, int(number))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, TIMESTAMPNS, 1)
    udp.bind((ip, port))
    with_numbers = "--number" in arguments
    sent, told, frames, stamps = [], [], set(), set()
    running = True

    def leave(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    ssrc, sequence, timestamp = os.getpid(), os.getpid() & 0x7FFF, 1000
    tone = bytes(ears.encode(x) for x in ears.sine(hz, ears.RATE))
    counts = {"packets": 0, "ssrcs": 0, "seq_breaks": 0, "timestamp_breaks": 0, "longest_gap_ms": 0, "strange": 0}
    # The first ten: packet, steps of the sequence number, steps of the timestamp.
    counts["breaks"] = []
    sources, last, last_at, first, heard = set(), None, None, None, {}
    due = time.monotonic()
    while running:
        wait = max(due - time.monotonic(), 0)
        readable, _, _ = select.select([udp], [], [], wait)
        if readable:
            # The kernel's own time of arrival: that this process was late is nobody's gap.
            packet, ancillary, _, source = udp.recvmsg(2048, 64)
            arrived = next((STAMP.unpack(data[: STAMP.size]) for _, kind, data in ancillary if kind == TIMESTAMPNS), None)
            now = arrived[0] + arrived[1] / 1e9 if arrived else time.time()
            if len(packet) < 12 or packet[0] >> 6 != 2 or packet[1] & 0x7F != 0:
                # Comfort noise and telephone events are not audio.
                counts["strange"] += 1
                continue
            remote = remote or source
            number, stamp, sender = struct.unpack("!HII", packet[2:12])
            audio = packet[12 + 4 * (packet[0] & 0x0F) :]
            sources.add(sender)
            if with_numbers:
                told.append([round(now * 1000), number_of(audio)])
            # One stream, whatever of it is lost: the packets that came, and how far the
            # timestamp is from the clock of the sequence numbers.
            last_frame = last[2] if last else number
            frame = last_frame + ((number - last_frame + 0x8000) & 0xFFFF) - 0x8000
            frames.add(frame)
            stamps.add((stamp - FRAME * frame) & 0xFFFFFFFF)
            if last is not None:
                counts["longest_gap_ms"] = max(counts["longest_gap_ms"], round((now - last_at) * 1000))
                steps = (number - last[0]) & 0xFFFF
                counts["seq_breaks"] += steps != 1
                if steps != 1 and len(counts["breaks"]) < 10:
                    counts["breaks"].append([counts["packets"], steps, (stamp - last[1]) & 0xFFFFFFFF])
                counts["timestamp_breaks"] += (stamp - last[1]) & 0xFFFFFFFF != (FRAME * steps) & 0xFFFFFFFF
            else:
                first = stamp
                counts["first_at_ms"] = round(time.time() * 1000)
            last, last_at = (number, stamp, frame), now
            counts["packets"] += 1
            offset = (stamp - first) & 0xFFFFFFFF
            if offset < SAMPLES_MAX:
                heard[offset] = audio
        now = time.monotonic()
        if now >= due:
            due += 0.02
            if now > due + 1:
                due = now
            if remote:
                start = timestamp % ears.RATE
                payload = (tone + tone)[start : start + FRAME]
                if with_numbers:
                    payload = numbered(payload, len(sent) & 0xFFFF)
                    sent.append(round(time.time() * 1000))
                head = struct.pack("!BBHII", 0x80, 0, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)
                try:
                    udp.sendto(head + payload, remote)
                except OSError:
                    pass  # The other side has closed its port.
                sequence, timestamp = sequence + 1, timestamp + FRAME
    length = max((offset + len(audio) for offset, audio in heard.items()), default=0)
    samples = [0] * length
    for offset, audio in heard.items():
        samples[offset : offset + len(audio)] = [ears.DECODE[byte] for byte in audio]
    ears.write(wav, samples)
    counts["ssrcs"], counts["offsets"] = len(sources), len(stamps)
    counts["frames"], counts["span"] = len(frames), max(frames, default=-1) - min(frames, default=0) + 1
    if with_numbers:
        counts["sent"], counts["told"] = sent, told
    with open(stats, "w", encoding="utf-8") as file:
        json.dump(counts, file)


if __name__ == "__main__":
    main(sys.argv[1:])
