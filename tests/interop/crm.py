#!/usr/bin/env python3
"""A CRM that receives webhooks and believes none that is not signed (Standard Webhooks:
HMAC-SHA256 over `id.timestamp.body`). One JSON line for each.

  crm.py IP PORT SECRET LOG"""

import base64
import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Largest body: a payload is at most 64 KB.
BODY_MAX = 128 * 1024
TOLERANCE_S = 300


def genuine(secret, message_id, timestamp, body, signatures):
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    fresh = timestamp.isdigit() and abs(time.time() - int(timestamp)) <= TOLERANCE_S
    given = [part.removeprefix("v1,") for part in signatures.split(" ") if part.startswith("v1,")]
    return fresh and any(hmac.compare_digest(wanted, part) for part in given)


def main(ip, port, secret, path):
    log = open(path, "w", encoding="utf-8", buffering=1)

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(min(length, BODY_MAX))
            message = self.headers.get("webhook-id", "")
            stamp = self.headers.get("webhook-timestamp", "")
            good = genuine(secret, message, stamp, body, self.headers.get("webhook-signature", ""))
            try:
                event = json.loads(body)
            except ValueError:
                event = {}
            line = {"id": message, "type": event.get("type"), "verified": good, "bytes": len(body)}
            log.write(json.dumps(line) + "\n")
            answer = b'{"popped":true}' if good else b'{"error":"signature"}'
            self.send_response(200 if good else 401)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            """The log above says it all."""

    ThreadingHTTPServer((ip, port), Receiver).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
