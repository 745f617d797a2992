#!/usr/bin/env python3
"""Tones, and who hears them. As a library: µ-law, Goertzel, WAV. As a program:

  ears.py tone HZ SECONDS FILE         write a WAV of one tone
  ears.py hears FILE HZ SECONDS        at least so many seconds of this tone
  ears.py lacks FILE HZ                not a single window of this tone
  ears.py mostly FILE HZ PERCENT       the tone fills so much of the recording
  ears.py strange NEEDLE FROM TO FILE  nothing of the needle, between these seconds of it, is in FILE

All audio is 8 kHz, 16 bit, mono."""

import cmath
import math
import struct
import sys
import wave

RATE = 8000
# 100 ms: every tone of these tests is a multiple of 50 Hz and falls on a bin of its own.
WINDOW = RATE // 10
# Share of a window's energy that one tone must hold to be heard.
SHARE = 0.5
# Louder than this is not silence (about -46 dBFS).
FLOOR = 160.0


def encode(sample):
    """One sample to µ-law (G.711)."""
    sign = 0x80 if sample < 0 else 0
    value = min(abs(sample), 32635) + 132
    exponent = max(value.bit_length() - 8, 0)
    return ~(sign | exponent << 4 | (value >> (exponent + 3)) & 0x0F) & 0xFF


def _decode(byte):
    byte = ~byte & 0xFF
    value = (((byte & 0x0F) << 3) + 132 << (byte >> 4 & 7)) - 132
    return -value if byte & 0x80 else value


DECODE = [_decode(byte) for byte in range(256)]


def sine(hz, count, start=0, level=8000):
    return [int(level * math.sin(2 * math.pi * hz * (start + at) / RATE)) for at in range(count)]


def read(path):
    with wave.open(path, "rb") as file:
        rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
        data = file.readframes(file.getnframes())
    if width != 2:
        raise SystemExit(f"{path}: {width * 8} bit")
    samples = struct.unpack(f"<{len(data) // 2}h", data)[::channels]
    return list(samples[:: max(rate // RATE, 1)])


def write(path, samples):
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))


def share(window, hz):
    """Share of the window's energy that lies at `hz` (Goertzel)."""
    energy = sum(sample * sample for sample in window)
    if energy < FLOOR * FLOOR * len(window):
        return 0.0
    turn = 2 * math.cos(2 * math.pi * hz / RATE)
    last = before = 0.0
    for sample in window:
        last, before = sample + turn * last - before, last
    power = last * last + before * before - turn * last * before
    return 2 * power / (len(window) * energy)


def windows(samples):
    return [samples[at : at + WINDOW] for at in range(0, len(samples) - WINDOW + 1, WINDOW)]


def heard(samples, hz):
    """How many windows hold the tone."""
    return sum(share(window, hz) >= SHARE for window in windows(samples))


def _fft(values, sign):
    count = len(values)
    if count == 1:
        return values
    even, odd = _fft(values[::2], sign), _fft(values[1::2], sign)
    half = count // 2
    turned = [cmath.exp(sign * 2j * math.pi * at / count) * odd[at] for at in range(half)]
    return [even[at] + turned[at] for at in range(half)] + [even[at] - turned[at] for at in range(half)]


def correlation(needle, haystack):
    """The largest normalised correlation of the needle at any place of the haystack."""
    size = 1
    while size < len(haystack) + len(needle):
        size *= 2
    a = _fft([complex(x) for x in haystack] + [0j] * (size - len(haystack)), -1)
    b = _fft([complex(x) for x in needle] + [0j] * (size - len(needle)), -1)
    product = _fft([x * y.conjugate() for x, y in zip(a, b)], 1)
    norm = math.sqrt(sum(x * x for x in needle))
    sums = [0.0]
    for sample in haystack:
        sums.append(sums[-1] + sample * sample)
    best = 0.0
    for at in range(len(haystack) - len(needle) + 1):
        energy = sums[at + len(needle)] - sums[at]
        if energy > FLOOR * FLOOR * len(needle) / 4:
            best = max(best, abs(product[at].real) / size / norm / math.sqrt(energy))
    return best


def loudest(samples, length, count):
    """The loudest passages of this length that do not overlap."""
    starts = range(0, max(len(samples) - length + 1, 0), length)
    passages = [samples[at : at + length] for at in starts]
    passages.sort(key=lambda passage: -sum(x * x for x in passage))
    return [p for p in passages[:count] if sum(x * x for x in p) > FLOOR * FLOOR * length]


def main(arguments):
    command, rest = arguments[0], arguments[1:]
    if command == "tone":
        hz, seconds, path = float(rest[0]), float(rest[1]), rest[2]
        write(path, sine(hz, int(seconds * RATE)))
        return 0
    if command == "strange":
        needle, begin, end, path = read(rest[0]), float(rest[1]), float(rest[2]), rest[3]
        passages = loudest(needle[int(begin * RATE) : int(end * RATE)], RATE * 2 // 5, 3)
        if not passages:
            print("there is nothing to look for")
            return 1
        best = max(correlation(passage, read(path)) for passage in passages)
        print(f"correlation {best:.2f}, less than 0.5 wanted")
        return best >= 0.5
    samples = read(rest[0])
    hz = float(rest[1])
    found, total = heard(samples, hz), len(windows(samples))
    print(f"{found / 10:.1f} s of {hz:.0f} Hz in {total / 10:.1f} s")
    if command == "hears":
        return found < float(rest[2]) * 10
    if command == "lacks":
        return found > 0
    if command == "mostly":
        return total == 0 or found * 100 < float(rest[2]) * total
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
