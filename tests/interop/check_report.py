#!/usr/bin/env python3
"""Checks the figures of a demo's report. Prints `ok …` or `FAILED …` for each."""

import json
import os
import struct
import sys
import wave

# A second of 8 kHz, in which a sample is above −50 dBFS.
SOUND_SAMPLES, SOUND_LEVEL, FRAME = 8_000, 104, 160
PER_STALL = {"longest_gap_ms": 40, "longest_silence_ms": 500}


def sound(path):
    """Samples in the 20 ms frames of a WAV file in which something is heard."""
    try:
        with wave.open(path) as file:
            if (file.getframerate(), file.getsampwidth(), file.getnchannels()) != (8_000, 2, 1):
                return 0
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error):
        return 0
    samples = struct.unpack(f"<{len(data) // 2}h", data[: len(data) // 2 * 2])
    frames = (samples[at : at + FRAME] for at in range(0, len(samples), FRAME))
    return sum(len(frame) for frame in frames if max(map(abs, frame)) > SOUND_LEVEL)


def main(path):
    try:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
    except (OSError, ValueError) as error:
        print(f"FAILED report: {error}")
        return 1
    failures = 0

    def check(name, value, holds, limit):
        nonlocal failures
        failures += not holds
        print(f"{'ok' if holds else 'FAILED'} report: {name} = {value!r} ({limit})")

    def member(*names):
        value = report
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def number(*names):
        value = member(*names)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    stall = number("host_stall_ms")
    check("host_stall_ms", stall, stall is not None and stall >= 0, "0 or more")
    stall = stall or 0
    check("outcome", member("outcome"), member("outcome") == "completed", "completed")
    for name in ("call_id", "transfer_id"):
        check(name, bool(member(name)), bool(member(name)), "named")
    for name in ("category", "rule_id"):
        check(f"trigger.{name}", member("trigger", name), bool(member("trigger", name)), "named")
    for name, limit in PER_STALL.items():
        value = number("caller", name)
        check(f"caller.{name}", value, value is not None and value <= limit + stall, f"at most {limit} + {stall}")
    # A machine that stood for five frames and more tears any stream.
    breaks = number("caller", "seq_breaks")
    check("caller.seq_breaks", breaks, breaks == 0 or (breaks is not None and stall >= 100), "0")
    heard = member("caller", "heard_whisper")
    check("caller.heard_whisper", heard, heard is False, "false")
    skew = number("accept_skew_ms")
    check("accept_skew_ms", skew, skew is not None and skew <= 50 + stall, f"at most 50 + {stall}")
    lead = number("card_lead_ms")
    check("card_lead_ms", lead, lead is not None and lead > 0, "more than 0")
    check("transition.reason", member("transition", "reason"), bool(member("transition", "reason")), "named")
    anchor = member("transition", "anchor_s")
    check("transition.anchor_s", anchor, isinstance(anchor, (int, float)) and anchor > 0, "a number")
    check("transition.played_pm", number("transition", "played_pm"), number("transition", "played_pm") == 1000, "1000")
    sentences = number("payload", "sentences")
    check("payload.sentences", sentences, sentences in (2, 3), "2 or 3")
    check("payload.acknowledged", member("payload", "acknowledged"), member("payload", "acknowledged") is True, "true")
    hooks = member("webhooks") or []
    check("webhooks", len(hooks), len(hooks) > 0, "at least one")
    bad = [hook for hook in hooks if not 200 <= (hook.get("status") or 0) < 300]
    check("webhooks not delivered", len(bad), not bad, "0")
    check("audit.verified", member("audit", "verified"), member("audit", "verified") is True, "true")
    records = number("audit", "records")
    check("audit.records", records, (records or 0) >= 15, "at least 15")
    opened, closed = number("legs", "opened"), number("legs", "closed")
    check("legs", [opened, closed], opened == closed and (opened or 0) >= 3, "all closed, at least 3")
    check("timeline", len(member("timeline") or []), bool(member("timeline")), "not empty")
    for party in ("caller", "human", "voice_agent"):
        wav = member("recordings", party) or ""
        heard = sound(wav)
        check(f"recordings.{party}", heard, os.path.isabs(wav) and heard > SOUND_SAMPLES, "more than a second of sound")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
