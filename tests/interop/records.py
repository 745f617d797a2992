#!/usr/bin/env python3
"""Reads what `audit show CALL --json` printed and wants a completed transfer in it: the steps
in their order, every leg that was opened closed, and a human who is named.

  records.py FILE"""

import json
import sys

IN_ORDER = [
    "call.received",
    "disclosure.ai_identity",
    "transfer.decided",
    "agent.offered",
    "agent.answered",
    "whisper.ended",
    "agent.accepted",
    "bridge.completed",
    "producer.final",
]


def main(path):
    with open(path, encoding="utf-8") as file:
        records = [json.loads(line) for line in file if line.startswith("{")]
    kinds = [record["type"] for record in records]
    at = -1
    for wanted in IN_ORDER:
        if wanted not in kinds[at + 1 :]:
            print(f"{wanted} is missing after {kinds[at] if at >= 0 else 'the start'}: {kinds}")
            return 1
        at = kinds.index(wanted, at + 1)
    opened, closed = kinds.count("leg.opened"), kinds.count("leg.closed")
    if opened != closed or opened < 3:
        print(f"{opened} legs opened, {closed} closed")
        return 1
    outcomes = [r["body"].get("outcome") for r in records if isinstance(r["body"], dict) and "outcome" in r["body"]]
    if "completed" not in json.dumps(outcomes) or "degraded" in json.dumps(outcomes):
        print(f"outcomes: {outcomes}")
        return 1
    print(f"{len(records)} records, {opened} legs opened and closed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
