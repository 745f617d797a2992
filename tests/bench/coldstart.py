"""How large each function is, how long it takes from its start to its first poll, how long its
first record takes it, and how much memory it then has.

Usage: coldstart.py DIRECTORY [STARTS]. DIRECTORY holds the binaries of one build for this
machine's processor. Plays the platform that a function polls, and the services: each answers
at once with nothing, so the figures are the program's own. The first record is a bad one,
which is parked (of measure-transfers: a closed call without records): it needs one request,
and with it what a function puts off until its first, such as a client and its roots of trust.
The services are asked over plain HTTP; a handshake comes on top.

Exits with 1 when a binary or a p50 start is beyond its goal.
"""

import http.server
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time

FUNCTIONS = ["evaluate-trigger", "build-payload", "send-webhook", "write-audit", "measure-transfers"]
GOAL_MB, GOAL_MS = 8, 30
STARTS = 20
PATIENCE_S = 10

BAD_RECORD = {"Records": [{"messageId": "1", "receiptHandle": "1", "body": "not a record",
                           "attributes": {"MessageGroupId": "1", "SentTimestamp": "1"}}]}
CLOSED_CALL = {"Records": [{"dynamodb": {"SequenceNumber": "1", "NewImage": {
    "tenant": {"S": "t_bench"}, "chain": {"S": "call_0001"}, "state": {"S": "closed"}}}}]}


class Platform(http.server.ThreadingHTTPServer):
    """Platform and services of one start: gives one event, tells what it hears and when."""

    daemon_threads = True

    def __init__(self, event):
        super().__init__(("127.0.0.1", 0), Handler)
        self.event = json.dumps(event).encode()
        self.told = queue.Queue()
        self.gate = threading.Event()
        self.polls = self.requests = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def handle_error(self, request, client_address):
        """The process is killed in the middle of its second poll: no news."""

    def heard(self, name, what):
        try:
            told, when = self.told.get(timeout=PATIENCE_S)
        except queue.Empty:
            sys.exit(f"{name}: no {what} within {PATIENCE_S} s")
        if told != what:
            sys.exit(f"{name}: {told} instead of {what}")
        return when


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise the second packet of an answer waits for the acknowledgement of the first.
    disable_nagle_algorithm = True

    def do_GET(self):
        self.server.polls += 1
        if self.server.polls > 1:
            time.sleep(PATIENCE_S)
            return
        self.server.told.put(("polled", time.perf_counter()))
        self.server.gate.wait(PATIENCE_S)
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", "1")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 60_000))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:1:function:f")
        self.send_header("Content-Length", str(len(self.server.event)))
        self.end_headers()
        self.wfile.write(self.server.event)

    def do_POST(self):
        length = self.headers.get("Content-Length")
        if length:
            self.rfile.read(int(length))
        elif "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        if "/runtime/invocation/" in self.path:
            # What the function says of itself: done, or an error.
            self.server.told.put((self.path.rsplit("/", 1)[-1], time.perf_counter()))
        else:
            self.server.requests += 1
        body = b"{}"
        self.send_response(202 if "/runtime/" in self.path else 200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def resident_mb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        kilobytes = next(line.split()[1] for line in status if line.startswith("VmRSS"))
    return int(kilobytes) / 1000


def environment(platform):
    address = f"127.0.0.1:{platform.server_port}"
    return {
        "AWS_LAMBDA_RUNTIME_API": address, "AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": f"http://{address}", "WB_TASK": "append",
        "WB_QUEUE_PARKED": f"http://{address}/parked", "WB_TABLE_AUDIT": "audit",
    }


def start(name, path):
    """One cold start: to the first poll and over the first record in ms, resident in MB."""
    platform = Platform(CLOSED_CALL if name == "measure-transfers" else BAD_RECORD)
    began = time.perf_counter()
    process = subprocess.Popen(
        [path], env=environment(platform), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        polled = platform.heard(name, "polled")
        given = time.perf_counter()
        platform.gate.set()
        answered = platform.heard(name, "response")
        if platform.requests == 0:
            sys.exit(f"{name}: its first record needed no request")
        return (polled - began) * 1000, (answered - given) * 1000, resident_mb(process.pid)
    finally:
        process.kill()
        process.wait()
        platform.shutdown()
        platform.server_close()


def p90(values):
    return sorted(values)[max(0, -(-len(values) * 9 // 10) - 1)]


def main():
    directory = sys.argv[1]
    starts = int(sys.argv[2]) if len(sys.argv) > 2 else STARTS
    print(f"goals: {GOAL_MB} MB, {GOAL_MS} ms to the first poll (p50); {starts} starts of each")
    print(f"{'function':<20} {'MB':>6} {'p50 ms':>8} {'p90 ms':>8} {'record ms':>10} {'RSS MB':>8}")
    beyond = []
    for name in FUNCTIONS:
        path = os.path.join(directory, name)
        if not os.path.exists(path):
            print(f"{name:<20} not built")
            continue
        taken = [start(name, path) for _ in range(starts)]
        size = os.path.getsize(path) / 1e6
        polls = [poll for poll, _, _ in taken]
        first = statistics.median(record for _, record, _ in taken)
        resident = max(rss for _, _, rss in taken)
        print(f"{name:<20} {size:>6.1f} {statistics.median(polls):>8.1f} {p90(polls):>8.1f} "
              f"{first:>10.1f} {resident:>8.1f}")
        if size > GOAL_MB or statistics.median(polls) > GOAL_MS:
            beyond.append(name)
    if beyond:
        sys.exit(f"beyond a goal: {', '.join(beyond)}")


if __name__ == "__main__":
    main()
