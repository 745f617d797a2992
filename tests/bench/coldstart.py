"""How large each function is, and how long it takes from its start to its first poll.

Usage: coldstart.py DIRECTORY [STARTS]. DIRECTORY holds the binaries of one build for this
machine's processor. Plays the part of the platform that a function polls; nothing else is
asked of it, so the figure is the program's own start.
"""

import http.server
import os
import statistics
import subprocess
import sys
import threading
import time

FUNCTIONS = ["evaluate-trigger", "build-payload", "send-webhook", "write-audit", "measure-transfers"]
GOAL_MB, GOAL_MS = 8, 30


class Platform(http.server.BaseHTTPRequestHandler):
    polled = threading.Event()

    def do_GET(self):
        Platform.polled.set()
        time.sleep(60)

    def log_message(self, *_):
        pass


def main():
    directory = sys.argv[1]
    starts = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Platform)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}", "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "1", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "WB_TASK": "append",
    }
    print(f"{'function':<20} {'MB':>6} {'p50 ms':>8} {'max ms':>8}   goal: {GOAL_MB} MB, {GOAL_MS} ms")
    for function in FUNCTIONS:
        path = os.path.join(directory, function)
        taken = []
        for _ in range(starts):
            Platform.polled.clear()
            began = time.perf_counter()
            process = subprocess.Popen([path], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            reached = Platform.polled.wait(10)
            taken.append((time.perf_counter() - began) * 1000)
            process.kill()
            process.wait()
            if not reached:
                sys.exit(f"{function} never polled")
        size = os.path.getsize(path) / 1e6
        print(f"{function:<20} {size:>6.1f} {statistics.median(taken):>8.1f} {max(taken):>8.1f}")


if __name__ == "__main__":
    main()
