#!/usr/bin/env python3
"""The person at a baresip: lets it ring, answers, listens, presses a key; or dials, and hangs
up by a key of the telephone. It drives baresip through its control port (netstrings of JSON).
One JSON line for each event.

  softphone.py PORT LOG --ring S --listen S --press KEYS [--again S]
  softphone.py PORT LOG --dial URI --talk S [--hold S --resume S]

`--again` presses the keys a second time, so many seconds later; `--talk` is how long the call
lasts from its answer, `--hold` and `--resume` when the other end is put on hold and taken back."""

import argparse
import json
import socket
import time


class Control:
    def __init__(self, port):
        deadline = time.monotonic() + 10
        while True:
            try:
                self.tcp = socket.create_connection(("127.0.0.1", port), 2)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        self.buffer = b""

    def command(self, name, parameter=None):
        body = {"command": name, "token": name}
        if parameter is not None:
            body["params"] = parameter
        text = json.dumps(body).encode()
        self.tcp.sendall(str(len(text)).encode() + b":" + text + b",")

    def message(self, timeout):
        """The next message, or None when none came in time."""
        deadline = time.monotonic() + timeout
        while True:
            head, colon, rest = self.buffer.partition(b":")
            if colon and len(rest) > int(head):
                length = int(head)
                self.buffer = rest[length + 1 :]
                return json.loads(rest[:length])
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.tcp.settimeout(left)
            try:
                data = self.tcp.recv(65536)
            except TimeoutError:
                return None
            if not data:
                raise SystemExit("baresip is gone")
            self.buffer += data


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("log")
    parser.add_argument("--ring", type=float, default=1.5)
    parser.add_argument("--listen", type=float, default=6)
    parser.add_argument("--press", default="")
    parser.add_argument("--again", type=float)
    parser.add_argument("--dial")
    parser.add_argument("--talk", type=float, default=30)
    parser.add_argument("--hold", type=float)
    parser.add_argument("--resume", type=float)
    options = parser.parse_args()
    log = open(options.log, "w", encoding="utf-8", buffering=1)

    def note(what, **more):
        log.write(json.dumps({"at_ms": round(time.time() * 1000), "what": what, **more}) + "\n")

    control = Control(options.port)
    note("ready")
    due = [(time.monotonic(), ("dial", options.dial))] if options.dial else []
    while True:
        wait = max(min((at for at, _ in due), default=time.monotonic() + 1) - time.monotonic(), 0)
        message = control.message(max(wait, 0.01))
        now = time.monotonic()
        for _, action in [entry for entry in due if entry[0] <= now]:
            note("does", action=action)
            control.command(*action)
        due = [entry for entry in due if entry[0] > now]
        if message is None:
            continue
        note(message.get("type") or "response", text=json.dumps(message)[:300])
        if message.get("type") == "CALL_INCOMING":
            due.append((now + options.ring, ("accept",)))
        if message.get("type") == "CALL_ESTABLISHED" and options.dial:
            due.append((now + options.talk, ("hangup",)))
            keys = ((options.hold, "hold"), (options.resume, "resume"))
            due.extend((now + at, (key,)) for at, key in keys if at is not None)
        elif message.get("type") == "CALL_ESTABLISHED" and options.press:
            due.append((now + options.listen, ("sndcode", options.press)))
            if options.again is not None:
                due.append((now + options.listen + options.again, ("sndcode", options.press)))


if __name__ == "__main__":
    main()
