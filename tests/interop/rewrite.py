#!/usr/bin/env python3
"""Forges a store as somebody would who knows the format: rewrites a record, and after it every
record, hash and head of its chain, so that the chain is whole; or removes a call with every
trace. What is left verifies by itself. `age` forges nothing but the calendar: it dates the whole
call seven years back, for a test of what happens then. Usage: rewrite.py DATABASE record|call|age"""

import hashlib
import json
import sqlite3
import sys

DOMAIN = b"warmbridge-audit/v1\0event\0"


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def rewrite(rows):
    """(seq, cj) of a chain in order, to (seq, cj, hash) of another that is as whole."""
    forged, prev = [], None
    for seq, cj in rows:
        envelope = json.loads(cj)
        if prev is not None:
            envelope["prev"] = prev
        elif envelope["type"] == "agent.accepted":
            envelope["body"]["agent_id"] = "agent_somebody_else"
        else:
            continue
        cj = canonical(envelope)
        prev = hashlib.sha256(DOMAIN + cj).hexdigest()
        forged.append((seq, cj, prev))
    return forged


def back(stamp):
    """The same day of seven years ago; the day before where there was none."""
    day = stamp[5:10] if stamp[5:10] != "02-29" else "02-28"
    return f"{int(stamp[:4]) - 7}-{day}{stamp[10:]}"


def age(store, call):
    """Dates both chains of a call back, links, hashes and the citation of the close included."""
    end = None
    for chain in (call, call + "#late"):
        rows = store.execute("SELECT seq, cj, recorded_at FROM audit WHERE chain = ? ORDER BY seq", (chain,)).fetchall()
        prev = None
        for seq, cj, recorded in rows:
            envelope = json.loads(cj)
            envelope["occurred_at"] = back(envelope["occurred_at"])
            envelope["prev"] = prev or envelope["prev"]
            if envelope["type"] == "late.opened":
                envelope["body"]["closed_hash"] = end
            cj = canonical(envelope)
            prev = hashlib.sha256(DOMAIN + cj).hexdigest()
            store.execute(
                "UPDATE audit SET cj = ?, hash = ?, occurred_at = ?, recorded_at = ? WHERE chain = ? AND seq = ?",
                (cj, prev, envelope["occurred_at"], back(recorded), chain, seq),
            )
        if prev:
            store.execute("UPDATE audit_head SET hash = ?, started_at = started_at - 7 * 365 * 86400000 WHERE chain = ?", (prev, chain))
        end = prev
    store.execute("DELETE FROM signed_heads")


def main():
    path, what = sys.argv[1:]
    store = sqlite3.connect(path)
    (call,) = store.execute("SELECT call FROM audit_keys LIMIT 1").fetchone()
    if what == "age":
        age(store, call)
    elif what == "call":
        for table in ("audit", "audit_head", "audit_idem", "signed_heads"):
            store.execute(f"DELETE FROM {table} WHERE chain = ? OR chain = ?", (call, call + "#late"))
        for table in ("audit_keys", "payloads", "transcripts", "webhooks"):
            store.execute(f"DELETE FROM {table} WHERE call = ?", (call,))
    else:
        rows = store.execute("SELECT seq, cj FROM audit WHERE chain = ? ORDER BY seq", (call,)).fetchall()
        forged = rewrite(rows)
        assert len(forged) > 2, "no record to begin with"
        for seq, cj, digest in forged:
            store.execute("UPDATE audit SET cj = ?, hash = ? WHERE chain = ? AND seq = ?", (cj, digest, call, seq))
        store.execute("UPDATE audit_head SET hash = ? WHERE chain = ?", (forged[-1][2], call))
    store.commit()


if __name__ == "__main__":
    main()
