#!/usr/bin/env python3
"""Asks the edge's HTTP port for what nobody may have, in ways that nobody should, and holds
as many idle connections as it is told. Each answer has to be the one that is wanted.

  http_garbage.py HOST PORT AGENT_TOKEN CONNECTIONS"""

import json
import socket
import sys

TEN_MB = 10 * 1000 * 1000


def ask(address, head, body=b"", token=None):
    """The status and the body of an answer; 0 where the connection is closed instead."""
    lines = [*head, "Host: edge.example", "Connection: close"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body and not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in head):
        lines.append(f"Content-Length: {len(body)}")
    with socket.create_connection(address, 10) as tcp:
        tcp.settimeout(20)
        got = b""
        try:
            tcp.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        except OSError:
            pass  # The edge need not read ten megabytes to refuse them; its answer may be there.
        try:
            while part := tcp.recv(65536):
                got += part
        except OSError:
            pass
    status, _, rest = got.partition(b"\r\n")
    words = status.split()
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") else 0, rest.partition(b"\r\n\r\n")[2]


def main(host, port, token, connections):
    address = (host, int(port))
    post = ["POST /v1/transfers/xfer_01/decline HTTP/1.1", "Content-Type: application/json"]
    cases = [
        ("malformed JSON", post, b'{"reason":', token, {400, 422}),
        ("JSON of another shape", post, b'[[[[["busy"]]]]]', token, {400, 422}),
        ("an unknown member", post, b'{"reason":"busy","colour":"red"}', token, {400, 422}),
        ("a body of 10 MB", post, b" " * TEN_MB, token, {413, 0}),
        ("the promise of 10 MB", [*post, f"Content-Length: {TEN_MB}"], b"{}", token, {413, 0}),
        ("two lengths", [*post, "Content-Length: 2", "Content-Length: 3"], b"{} ", token, {400, 0}),
        ("no token", ["GET /v1/calls HTTP/1.1"], b"", None, {401}),
        ("a wrong token", ["GET /v1/calls HTTP/1.1"], b"", token[::-1], {401}),
        ("the token of another role", ["GET /v1/calls HTTP/1.1"], b"", token, {403}),
        ("another role's deed", ["POST /v1/transfers/xfer_01/cancel HTTP/1.1", "Content-Type: application/json"], b"{}", token, {403}),
        ("a path that climbs", ["GET /desktop/../../../../etc/passwd HTTP/1.1"], b"", token, {400, 404}),
        ("a header without end", ["GET / HTTP/1.1", "X: " + "x" * 100_000], b"", None, {431, 400, 0}),
        ("no HTTP at all", ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], b"", None, {400, 0}),
    ]
    bad = []
    for what, head, body, whose, wanted in cases:
        status, answer = ask(address, head, body, whose)
        if status not in wanted:
            bad.append(f"{what}: {status}, wanted {sorted(wanted)}")
        if status in (400, 422) and head[0].startswith("POST") and "JSON" in what:
            # Who asks is told what is wrong, in a form that a program reads.
            if "title" not in json.loads(answer or b"{}"):
                bad.append(f"{what}: no problem document: {answer[:80]!r}")
    idle = [socket.create_connection(address, 10) for _ in range(int(connections))]
    status, _ = ask(address, ["GET /healthz HTTP/1.1"])
    if status != 200:
        bad.append(f"beside {connections} idle connections: {status}")
    for tcp in idle:
        tcp.close()
    print("; ".join(bad) or f"{len(cases)} of {len(cases)}, and an answer beside {connections} idle connections")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
