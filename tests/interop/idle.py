#!/usr/bin/env python3
"""Idle clocks, one on each processor, scheduled as the edge's media thread is where that is
allowed. How late the latest of them ever woke is what the machine, and not the edge, took from
the audio. At SIGTERM it writes that as JSON.

  idle.py FILE"""

import json
import os
import signal
import sys
import threading
import time

STEP_S = 0.005


class Clock(threading.Thread):
    def __init__(self, processor):
        super().__init__(daemon=True)
        self.processor, self.latest = processor, 0.0

    def run(self):
        # Of this thread alone: 0 is the caller.
        os.sched_setaffinity(0, {self.processor})
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except OSError:
            pass  # Then the media thread has no real-time scheduling either.
        while True:
            before = time.monotonic()
            time.sleep(STEP_S)
            self.latest = max(self.latest, time.monotonic() - before - STEP_S)


def main(path):
    clocks = [Clock(processor) for processor in os.sched_getaffinity(0)]
    # Taken before any thread runs, so that the signal waits for nobody.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    for clock in clocks:
        clock.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"stall_ms": round(max(clock.latest for clock in clocks) * 1000)}, file)


if __name__ == "__main__":
    main(sys.argv[1])
