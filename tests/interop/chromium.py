"""A browser under test: Chromium without a window, driven by its own protocol (DevTools) over
a WebSocket, with what this takes and no more. Nothing of it is downloaded."""

import asyncio
import json
import os
import shutil
import subprocess

import ws


class Failed(Exception):
    """The page threw, or the browser refused."""


class Chromium:
    def __init__(self, folder):
        self.folder = folder
        self.count = 0
        self.waiting = {}
        self.events = []
        self.changed = asyncio.Event()

    async def start(self):
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not program:
            raise SystemExit("FAILED chromium is missing (Debian package chromium)")
        # Its own sandbox needs what root, as in a container, does not have; it sees our page alone.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen(
            [program, "--headless=new", *sandbox, "--remote-debugging-port=0", f"--user-data-dir={self.folder}",
             "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--hide-scrollbars",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": self.folder},
        )
        port_file = os.path.join(self.folder, "DevToolsActivePort")
        for _ in range(300):
            if os.path.exists(port_file) and open(port_file, encoding="ascii").read().count("\n") >= 1:
                break
            await asyncio.sleep(0.1)
        port, path = open(port_file, encoding="ascii").read().split("\n")[:2]
        self.socket = await ws.connect("127.0.0.1", int(port), path)
        self.reader = asyncio.create_task(self._read())
        target = await self._command("Target.createTarget", url="about:blank")
        attached = await self._command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            await self.do(f"{domain}.enable")

    async def stop(self):
        self.reader.cancel()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()

    async def _read(self):
        while True:
            message = json.loads(await self.socket.receive())
            if "id" in message:
                self.waiting.pop(message["id"]).set_result(message)
            else:
                self.events.append(message)
                self.changed.set()

    async def _command(self, method, session=None, **params):
        self.count += 1
        answer = asyncio.get_running_loop().create_future()
        self.waiting[self.count] = answer
        message = {"id": self.count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        await self.socket.send(json.dumps(message))
        message = await asyncio.wait_for(answer, 30)
        if "error" in message:
            raise Failed(f"{method}: {message['error']}")
        return message["result"]

    async def do(self, method, **params):
        return await self._command(method, self.session, **params)

    async def eval(self, expression):
        """The value of an expression in the page."""
        result = await self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise Failed(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def until(self, expression, seconds=10):
        """Waits until an expression in the page holds, and returns its value."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                value = await self.eval(expression)
            except Failed:
                value = None  # It is still being loaded.
            if value:
                return value
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"never: {expression}; the page: {await self.eval('document.body.innerText')}")
            await asyncio.sleep(0.02)

    async def press(self, key, code=None):
        """One key, as a keyboard sends it."""
        text = key if len(key) == 1 else {"Enter": "\r"}.get(key, "")
        code = code or (f"Key{key.upper()}" if key.isalpha() and len(key) == 1 else key)
        virtual = {"Escape": 27, "Enter": 13, "Tab": 9}.get(key, ord(key.upper()) if len(key) == 1 else 0)
        common = {"key": key, "code": code, "windowsVirtualKeyCode": virtual}
        await self.do("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        await self.do("Input.dispatchKeyEvent", type="keyUp", **common)

    async def picture(self, **more):
        return (await self.do("Page.captureScreenshot", format="png", **more))["data"]

    def requests(self):
        """Every address that the page asked for."""
        sent = [event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        sockets = [event["params"]["url"] for event in self.events if event["method"] == "Network.webSocketCreated"]
        return sent + sockets

    def complaints(self, but):
        """What the page threw and what the browser refused it, but for a stretch of events."""
        events = self.events[: but[0]] + self.events[but[1] :]
        thrown = [event["params"]["exceptionDetails"]["text"] for event in events if event["method"] == "Runtime.exceptionThrown"]
        logged = [event["params"]["entry"] for event in events if event["method"] == "Log.entryAdded"]
        return thrown + [f"{entry['source']}: {entry['text']} {entry.get('url', '')}" for entry in logged if entry["level"] == "error"]
