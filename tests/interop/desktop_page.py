#!/usr/bin/env python3
"""The human agent's page in a browser, before a real edge: a caller, a colleague's phone, a
voice agent that says what it knows over the HTTP API, and a supervisor who asks for the
transfer there. One line a check, `ok …` or `FAILED …`. People and numbers are made up.

  desktop_page.py BINARY WORK [PICTURE]"""

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import chromium
import ws
from phone import Phone

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
AGENT, LEAD, WALL, BOT = (f"page-test-token-of-{who}-0123456789" for who in ("dana", "lead", "wall", "bot"))
# What the page may weigh, and how long a card may take to be on the screen.
BYTES_MAX = 50_000
PAINT_MAX_MS = 200
RESTORE_MAX_MS = 1_000
PICTURE_BYTES_MAX = 200_000

failures = 0


def check(what, holds, *measured):
    global failures
    failures += not holds
    said = " ".join(str(one) for one in measured)
    print(f"{'ok' if holds else 'FAILED'} {what}{': ' + said if said else ''}", flush=True)


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Edge:
    """The edge, its API and its configuration."""

    def __init__(self, binary, work, bot_port, people):
        self.http, self.sip = free_port(), free_port()
        path = os.path.join(work, "warmbridge.toml")
        policy = open(os.path.join(ROOT, "handoff/policies/default.toml"), encoding="utf-8").read()
        open(os.path.join(work, "policy.toml"), "w", encoding="utf-8").write(policy)
        open(path, "w", encoding="utf-8").write(
            f"""
[edge]
id = "edge_page"
tenant = "t_page"
sip_udp = "127.0.0.1:{self.sip}"
http = "127.0.0.1:{self.http}"
public_ip = "127.0.0.1"
public_url = "https://handoff.example"
rtp_ports = [30000, 30398]
data_dir = "data"
allow_loopback = true
[[trunk]]
name = "carrier"
addresses = ["127.0.0.2/32"]
[voice_agent]
url = "ws://127.0.0.1:{bot_port}/media"
signal_token = "{BOT}"
"""
            + "".join(
                f"""
[[agent]]
id = "{who}"
name = "{name}"
uri = "sip:{who}@{phone.ip}:{phone.port}"
trusted = true
ring_timeout_s = 90
desktop_token = "{token}"
"""
                for who, name, phone, token in people
            )
            + f"""
[[queue]]
id = "nurse_line"
label = "Nurse line"
spoken = "dest.nurse"
agents = ["dana", "eli"]
fallback = ["voice_agent"]
[[queue]]
id = "billing"
label = "Billing"
spoken = "dest.billing"
agents = ["eli", "dana"]
fallback = ["voice_agent"]
[payload]
verification = ["date_of_birth"]
names = ["patient_name"]
[[payload.intent]]
category = "clinical.medication_question"
label = "a possible side effect of a medicine"
required = ["patient_name", "date_of_birth", "medication", "dose"]
action = "nurse_triage"
[[payload.action]]
code = "nurse_triage"
text = "Ask since when and how often he is dizzy, check his other medicines, then decide on the next dose."
do_not = ["Do not ask for the refill again: it is on its way."]
[policy]
file = "policy.toml"
[[operator]]
id = "lead"
role = "supervisor"
token = "{LEAD}"
[[operator]]
id = "wall"
role = "monitor"
token = "{WALL}"
"""
        )
        self.log = open(os.path.join(work, "edge.log"), "wb")
        self.process = subprocess.Popen([binary, "serve", "--config", path], stdout=self.log, stderr=self.log, cwd=work)

    def ask(self, method, path, token="", body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", method=method)
        if token:
            request.add_header("authorization", f"Bearer {token}")
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=10) as answer:
                text = answer.read().decode()
                return answer.status, json.loads(text) if text.startswith(("{", "[")) else text
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    async def api(self, *what):
        return await asyncio.to_thread(self.ask, *what)

    async def up(self):
        for _ in range(100):
            try:
                if (await self.api("GET", "/readyz"))[0] == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            await asyncio.sleep(0.1)
        raise SystemExit("FAILED the edge does not come up")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Events:
    """The stream of events, as any client of the API would follow it."""

    def __init__(self, port):
        self.port, self.seen, self.changed = port, [], asyncio.Event()

    async def follow(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET /v1/events HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {WALL}\r\n\r\n".encode())
        while line := (await reader.readline()).decode():
            if line.startswith("data:") and line.strip() != "data: {}":
                self.seen.append(json.loads(line[5:]))
                self.changed.set()

    async def until(self, wanted, seconds=30, other_than=None, **more):
        """Waits for a fact of this type with these members, of another call than this one."""
        deadline = time.monotonic() + seconds
        while True:
            for event in self.seen:
                if event["type"] == wanted and event["call"] != other_than and all(event.get(key) == value for key, value in more.items()):
                    return event
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), max(deadline - time.monotonic(), 0.01))
            except asyncio.TimeoutError:
                kinds = [event["type"] for event in self.seen]
                raise TimeoutError(f"no {wanted} {more} among {kinds}") from None


class Proxy:
    """The network between page and edge, which can be cut."""

    def __init__(self, port):
        self.behind, self.open, self.down = port, set(), False

    async def start(self):
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def carry(self, reader, writer):
        if self.down:
            writer.close()
            return
        behind, before = await asyncio.open_connection("127.0.0.1", self.behind)
        self.open |= {writer, before}

        async def copy(source, sink):
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            sink.close()

        await asyncio.gather(copy(reader, before), copy(behind, writer))
        self.open -= {writer, before}

    def cut(self):
        self.down = True
        for writer in list(self.open):
            writer.transport.abort()

    def mend(self):
        self.down = False


async def voice_agent(reader, writer):
    """It hears the caller and says nothing; what it knows comes over HTTP."""
    try:
        socket = await ws.accept(reader, writer)
        while True:
            await socket.receive()
    except ws.Closed:
        pass


class Pushed(list):
    """When was what pushed to a page?"""

    socket = None

    def has(self, kind):
        """Whether a message was pushed by now, read or not."""
        if any(message["type"] == kind for _, message in self):
            return True
        unread = bytes(self.socket.reader._buffer)
        with socket.socket(fileno=os.dup(self.socket.writer.get_extra_info("socket").fileno())) as raw:
            try:
                unread += raw.recv(1 << 16, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
        return json.dumps({"type": kind})[1:-1].replace(" ", "").encode() in unread


async def watcher(port, seen):
    """A second page of the same person, which says nothing."""
    bearer = base64.urlsafe_b64encode(AGENT.encode()).decode().rstrip("=")
    seen.socket = await ws.connect("127.0.0.1", port, "/v1/desktop/ws", ["warmbridge.desktop.v1", f"bearer.{bearer}"])
    while True:
        message = json.loads(await seen.socket.receive())
        seen.append((time.time() * 1000, message))


def signals(prefix, *bodies):
    return [{"v": 1, "id": f"{prefix}-{number}", "type": kind, "data": data} for number, (kind, data) in enumerate(bodies)]


def turn(speaker, text):
    data = {"speaker": speaker, "text": text}
    return "turn", data | ({"confidence": 0.94} if speaker == "caller" else {})


# What is said before, and the question that the policy reserves for people.
CONVERSATION = [
    turn("agent", "Thank you for calling Riverside Clinic. How can I help you today?"),
    turn("caller", "Hello, this is Sam Marsh. I need a refill of my lisinopril."),
    ("intent", {"name": "clinical.medication_refill", "confidence": 0.93}),
    turn("agent", "Of course, Mr Marsh. May I have your date of birth?"),
    turn("caller", "It is 4 May 1961."),
    turn("agent", "Thank you. Is that the ten milligram tablet, and do you still use Hill Street Pharmacy?"),
    turn("caller", "Yes, ten milligrams, and yes, Hill Street Pharmacy. You can call me after four."),
    ("field", {"name": "patient_name", "value": "Sam Marsh", "confidence": 0.97, "verified": True, "pii": "pii"}),
    ("field", {"name": "date_of_birth", "value": "4 May 1961", "confidence": 0.97, "verified": True, "pii": "pii"}),
    ("field", {"name": "medication", "value": "lisinopril", "confidence": 0.96, "verified": True, "pii": "phi"}),
    ("field", {"name": "dose", "value": "ten milligrams", "confidence": 0.95, "verified": True, "pii": "phi"}),
    ("field", {"name": "pharmacy", "value": "Hill Street Pharmacy", "confidence": 0.95, "verified": True, "pii": "pii"}),
    ("field", {"name": "call_back", "value": "after four", "confidence": 0.71, "pii": "none"}),
    ("tool", {"name": "refill_request", "ok": True}),
    turn("agent", "Your refill is on its way. Is there anything else?"),
]
QUESTION = [
    turn("caller", "I felt dizzy twice this week. Should I go on taking it?"),
    ("intent", {"name": "clinical.medication_question", "confidence": 0.95}),
    ("topic", {"name": "medication", "confidence": 0.97, "regulated": True}),
]


async def main(binary, work, picture):
    os.makedirs(work, exist_ok=True)
    bots = await asyncio.start_server(voice_agent, "127.0.0.1", 0)
    edge_address = ["127.0.0.1", 0]
    desk, colleague = Phone("127.0.0.3", 0, edge_address), Phone("127.0.0.4", 0, edge_address)
    caller, second = (Phone("127.0.0.2", 0, edge_address, number) for number in ("+15555550142", "+15555550187"))
    for phone in (desk, colleague, caller, second):
        await phone.start()
    people = [("dana", "Dana Ruiz", desk, AGENT), ("eli", "Eli Brandt", colleague, AGENT + "-eli")]
    edge = Edge(binary, work, bots.sockets[0].getsockname()[1], people)
    edge_address[1] = edge.sip
    for phone in (desk, colleague, caller, second):
        phone.edge = tuple(edge_address)
    browser = chromium.Chromium(os.path.join(work, "profile"))
    tasks = []
    try:
        await edge.up()
        await browser.start()
        await play(edge, browser, (desk, colleague, caller, second), tasks, picture, work)
    finally:
        for task in tasks:
            task.cancel()
        await browser.stop()
        for phone in (desk, colleague, caller, second):
            phone.stop()
        edge.stop()


async def measure(page, name):
    """When a message arrived and when it was on the screen, on the wall clock, in ms."""
    found = await page.until(
        f"(() => {{ const [m] = performance.getEntriesByName('{name}', 'measure');"
        " return m && { at: performance.timeOrigin + m.startTime, took: m.duration }; })()"
    )
    return found["at"], found["took"]


async def play(edge, page, phones, tasks, picture, work):
    desk, colleague, caller, second = phones
    events, proxy, pushed = Events(edge.http), Proxy(edge.http), Pushed()
    await proxy.start()
    tasks.append(asyncio.create_task(events.follow()))
    tasks.append(asyncio.create_task(watcher(edge.http, pushed)))
    announced = []
    desk.on_invite = lambda: announced.append(pushed.has("incoming"))
    origin = f"http://127.0.0.1:{proxy.port}"

    async def shown(path):
        """What the page shows, kept beside the logs."""
        data = base64.b64decode(await page.picture())
        open(os.path.join(work, path), "wb").write(data)
        return data

    # The files, and what they may do.
    files = ["", "app.js", "style.css", "icon.svg"]
    weight = sum([len((await edge.api("GET", f"/desktop/{name}"))[1].encode()) for name in files])
    check("the page with all its files is small", weight <= BYTES_MAX, weight, "bytes")
    status, document = await edge.api("GET", "/v1/openapi.json")
    check("the API describes itself", status == 200 and document["openapi"] == "3.1.0", len(document["paths"]), "routes")

    # Signing in.
    await page.do("Emulation.setDeviceMetricsOverride", width=1360, height=850, deviceScaleFactor=1, mobile=False)
    await page.do("Browser.grantPermissions", origin=origin, permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    await page.do("Page.navigate", url=f"{origin}/desktop/#token={AGENT}")
    await page.until("document.getElementById('link').textContent === 'Connected'")
    check("the token does not stay in the address", await page.eval("location.hash") == "")
    check("the page waits for calls", await page.eval("document.getElementById('idle-title').textContent") == "Ready")
    await shown("idle.png")

    # A caller and a voice agent; what it understands comes over the API.
    caller.dial()
    await caller.hears("200 INVITE")
    first = (await events.until("call.received"))["call"]
    await events.until("disclosure.ai_identity", call=first)
    status, answer = await edge.api("POST", f"/v1/calls/{first}/signals", BOT, signals("a", *CONVERSATION))
    check("a batch of signals is taken", status == 202 and answer == {"signals": len(CONVERSATION)}, answer)
    status, answer = await edge.api("POST", f"/v1/calls/{first}/signals", BOT, signals("b", ("confidence", {"value": 2})))
    check("a signal that does not fit is named by its member", answer.get("field") == "[0].data.value", status, answer.get("field"))

    # Somebody else's caller waits.
    second.dial()
    await second.hears("200 INVITE")
    other = (await events.until("call.received", other_than=first))["call"]
    await events.until("disclosure.ai_identity", call=other)
    status, answer = await edge.api("POST", f"/v1/calls/{other}/transfer", LEAD, {"reason": "vip", "queue": "+88216555"})
    check("a number is no destination", (status, answer.get("field")) == (422, "queue"), status, answer.get("field"))
    ask = {"reason": "caller_request", "queue": "billing"}
    status, answer = await edge.api("POST", f"/v1/calls/{other}/transfer", LEAD, ask)
    check("a supervisor asks for a transfer", status == 202, answer)
    await events.until("agent.offered", call=other, agent="eli")
    await page.until("document.getElementById('waiting').children.length === 1")
    listed = await page.eval("document.getElementById('queue').innerText")
    check("who waits is on the page without a word of who it is", "Billing" in listed and "colleague" in listed and "5555" not in listed)

    # The offer: indicator, card, phone.
    await asyncio.sleep(1.2)
    await edge.api("POST", f"/v1/calls/{first}/signals", BOT, signals("c", *QUESTION))
    decided = await events.until("transfer.decided", call=first)
    check("the policy decides", decided["category"] == "regulatory", decided["category"])
    transfer = decided["transfer"]
    await page.until("!document.getElementById('accept').hidden && !document.getElementById('details').hidden")
    indicated, _ = await measure(page, "incoming")
    carded, took = await measure(page, "card")
    arrived = next(at for at, message in pushed if message["type"] == "card")
    await desk.hears("INVITE")
    await desk.hears("180")
    told = next(at for at, message in pushed if message["type"] == "incoming")
    lead, invited = desk.when("180") * 1000 - indicated, desk.when("INVITE") * 1000
    said = f"{lead:.0f} ms before; its INVITE {invited - told:+.1f} ms from the push, {invited - indicated:+.1f} ms from the browser's having it"
    check("the call is indicated before the phone rings", lead > 0, said)
    check("the page has the call before the INVITE leaves", announced[:1] == [True], announced)
    check("the card is painted", took <= PAINT_MAX_MS, f"{took:.1f} ms after it arrived, at most {PAINT_MAX_MS}")
    late = carded + took - arrived
    check("the card is painted after its push", late <= PAINT_MAX_MS, f"{late:.1f} ms after another page had it, at most {PAINT_MAX_MS}")
    focus = await page.eval("document.activeElement.id")
    check("the focus is on the headline", focus == "headline", focus)
    await events.until("screenpop.acked", call=first)
    check("the edge knows that it is painted", True)
    fetched = [url for url in page.requests() if "/transcripts/" in url]
    check("no transcript before it is asked for", not fetched)

    # What a screen reader finds.
    await spoken(page)

    # The truth after a reload, and after the network was gone.
    card = "document.getElementById('headline').textContent + document.getElementById('facts').innerText"
    before = await page.eval(card)
    await page.do("Page.reload")
    await page.until("document.readyState === 'complete' && !document.getElementById('details').hidden")
    _, took = await measure(page, "state")
    restored = await page.eval("performance.getEntriesByName('state', 'measure')[0].startTime") + took
    check("a reload shows the truth", await page.eval(card) == before and restored <= RESTORE_MAX_MS, f"{restored:.0f} ms, at most {RESTORE_MAX_MS}")
    cut = len(page.events)
    proxy.cut()
    await page.until("document.getElementById('link').textContent === 'Reconnecting'")
    check("a lost network is said", True)

    # The phone is answered meanwhile: the whisper, which the page shows when it is back.
    desk.answer()
    await events.until("whisper.started", call=first)
    proxy.mend()
    await page.until("document.getElementById('link').textContent === 'Connected'", 15)
    await page.until("!document.getElementById('caption').hidden")
    mended = len(page.events)
    caption = await page.eval("document.getElementById('caption').textContent")
    check("back again, with the whisper as a caption", len(caption) > 10, caption)

    # Keys.
    await page.press("c")
    await page.until("document.getElementById('note').textContent === 'Table copied'")
    copied = await page.eval("navigator.clipboard.readText()")
    check("the table is copied by a key", "lisinopril" in copied and "Sam Marsh" in copied, copied.count("\n") + 1, "lines")
    await page.press("2", "Digit2")
    await page.until("document.getElementById('note').textContent !== 'Table copied'")
    copied = await page.eval("navigator.clipboard.readText()")
    check("a line is copied by its number", copied and "\n" not in copied, copied)
    await page.press("d")
    await page.until("document.getElementById('why').open")
    await shown("decline.png")
    await page.press("Escape")
    await page.until("!document.getElementById('why').open")
    check("a decline asks why, and can be thought over", await page.eval("!document.getElementById('accept').disabled"))
    await page.press("?")
    await page.until("document.getElementById('keys').open")
    await shown("keys.png")
    await page.press("Escape")
    await page.until("!document.getElementById('keys').open")
    await page.eval("scrollTo(0, 0)")
    await page.until("!document.querySelector('.copied')")
    for scheme in ("dark", "light"):
        await page.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await asyncio.sleep(0.2)
        data = await shown(f"card-{scheme}.png")
        await contrast(page, scheme)
    if picture:
        open(picture, "wb").write(data)
    await page.do("Emulation.setDeviceMetricsOverride", width=400, height=850, deviceScaleFactor=1, mobile=False)
    wide = await page.eval("document.documentElement.scrollWidth")
    check("nothing is cut off on a narrow screen", wide <= 400, wide, "of 400 px")
    await shown("narrow.png")
    await page.do("Emulation.setDeviceMetricsOverride", width=1360, height=850, deviceScaleFactor=1, mobile=False)
    check("the picture for the README is small", len(data) < PICTURE_BYTES_MAX, len(data), "bytes")

    await page.press("a")
    accepted = await events.until("agent.accepted", call=first)
    check("accepted by a key", accepted["method"] == "ui", accepted["agent"])
    await events.until("bridge.completed", call=first)
    await page.until("document.getElementById('stage').textContent === 'Connected'")
    await shown("talking.png")
    status, answer = await edge.api("POST", f"/v1/transfers/{transfer}/accept", AGENT)
    check("accepting twice is a conflict", status == 409, answer.get("detail"))
    status, answer = await edge.api("POST", f"/v1/transfers/{transfer}/cancel", LEAD)
    check("a call that somebody has taken is not cancelled", status == 409, answer.get("detail"))

    # Transcript on demand.
    await page.press("t")
    await page.until("document.getElementById('transcript').children.length > 3")
    fetched = [url for url in page.requests() if "/transcripts/" in url]
    check("the transcript is fetched once, when it is asked for", len(fetched) == 1)
    await page.eval("document.getElementById('transcript').scrollIntoView()")
    await shown("transcript.png")

    # Hand back, with a second thought.
    await page.press("h")
    await page.until("document.getElementById('sure').open")
    await page.press("1", "Digit1")
    await page.until("document.getElementById('stage').textContent.includes('assistant has the caller')", 15)
    check("the caller is handed back by a key", True)
    await page.press("Escape")
    await page.until("!document.getElementById('idle').hidden")
    check("the desk is clear again", await page.eval("document.activeElement.id") == "idle-title")

    # Once more, declined with a reason.
    await asyncio.sleep(1)
    await edge.api("POST", f"/v1/calls/{first}/transfer", BOT, {"reason": "caller_request", "queue": "nurse_line"})
    await page.until("document.getElementById('accept').checkVisibility()", 20)
    await page.press("d")
    await page.until("document.getElementById('why').open")
    await page.press("2", "Digit2")
    declined = await events.until("agent.declined", call=first)
    check("a decline carries its reason", declined.get("reason") == "wrong_team", declined.get("reason"))
    await page.until("!document.getElementById('idle').hidden")

    # What the lists say, and the end.
    status, calls = await edge.api("GET", "/v1/calls", WALL)
    check("the calls are listed", status == 200 and {call["call"] for call in calls["calls"]} == {first, other})
    status, queues = await edge.api("GET", "/v1/queues", WALL)
    billing = next(queue for queue in queues["queues"] if queue["queue"] == "billing")
    check("a queue has its figures", billing["waiting"][0]["position"] == 1 and billing["people"] == 2, json.dumps(billing))
    waiting = billing["waiting"][0]["transfer"]
    status, _ = await edge.api("POST", f"/v1/transfers/{waiting}/cancel", LEAD)
    ended = await events.until("transfer.ended", transfer=waiting)
    check("a transfer is cancelled over the API", status == 202, ended["outcome"])
    for phone in (caller, second):
        phone.hang_up()
    await events.until("producer.final", call=first)
    await events.until("producer.final", call=other)
    await page.until("document.getElementById('waiting').children.length === 0")
    check("nobody waits any more", await page.eval("document.getElementById('queue-title').textContent") == "Nobody is waiting")

    told = json.dumps(events.seen)
    check("the events name nobody", not any(word in told for word in ("Marsh", "lisinopril", "5555550", "dizzy")), len(events.seen), "events")
    # The cut network is the one thing that the browser may complain of.
    complaints = page.complaints(but=(cut, mended))
    check("the browser has nothing to complain of", not complaints, *complaints[:3])
    strange = [url for url in page.requests() if not url.startswith((origin, origin.replace("http", "ws"), "about:"))]
    check("nothing is loaded from elsewhere", not strange, *strange[:3])


async def spoken(page):
    """Names, roles and live regions, as the browser tells them to a screen reader."""
    nodes = (await page.do("Accessibility.getFullAXTree"))["nodes"]
    nodes = [node for node in nodes if not node.get("ignored")]

    def role(node):
        return node.get("role", {}).get("value", "")

    def name(node):
        return node.get("name", {}).get("value", "")

    roles = {role(node) for node in nodes}
    wanted = {"main", "banner", "complementary", "contentinfo", "article", "heading", "table", "rowheader", "alert", "status", "button"}
    check("a screen reader finds its landmarks", wanted <= roles, *sorted(wanted - roles))
    controls = [node for node in nodes if role(node) in ("button", "link", "textbox")]
    nameless = [role(node) for node in controls if not name(node).strip()]
    check("every control has a name", controls and not nameless, len(controls), "controls")
    live = [prop["value"]["value"] for node in nodes for prop in node.get("properties", []) if prop["name"] == "live"]
    check("live regions speak, one of them at once", "assertive" in live and "polite" in live)
    headings = await page.eval("[...document.querySelectorAll('article h1, article h2')].filter(h => h.offsetParent).map(h => h.tagName).join(' ')")
    check("the headings are in order", headings.startswith("H1 H2"), headings)
    said = await page.eval("document.getElementById('announce').textContent")
    check("the offer is announced with its headline", said.startswith("Incoming transfer. "), said)
    # Each action on a key, and each key said.
    unkeyed = await page.eval(
        "[...document.querySelectorAll('main button, footer button, dialog button')]"
        ".filter(b => b.type !== 'submit' && !b.getAttribute('aria-keyshortcuts')).map(b => b.textContent)"
    )
    check("every action has a key", not unkeyed, *unkeyed)
    await page.press("Tab")
    outline = await page.eval("getComputedStyle(document.activeElement).outlineStyle")
    check("the focus is seen", outline == "solid", await page.eval("document.activeElement.id || document.activeElement.className"))
    await page.eval("document.getElementById('headline').focus()")


async def contrast(page, scheme):
    """WCAG 2.2, 1.4.3: text against what lies behind it, 4.5 to 1."""
    least = await page.eval(
        """(() => {
      const paint = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
      const mix = (over, under) => { paint.globalAlpha = 1; paint.fillStyle = under; paint.fillRect(0, 0, 1, 1);
        paint.fillStyle = over; paint.fillRect(0, 0, 1, 1); const [r, g, b] = paint.getImageData(0, 0, 1, 1).data; return `rgb(${r} ${g} ${b})`; };
      const light = (color) => { const [r, g, b] = color.match(/\\d+/g).map(Number).map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const behind = (e) => { const chain = []; for (let at = e; at; at = at.parentElement) chain.unshift(getComputedStyle(at).backgroundColor);
        return chain.reduce((under, over) => mix(over, under), 'rgb(255 255 255)'); };
      let least = { ratio: 99 };
      for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
        if (!own || !e.checkVisibility() || e.closest('.unseen, dialog:not([open]), :disabled')) continue;
        const back = behind(e); const opacity = Number(getComputedStyle(e).opacity);
        const ink = getComputedStyle(e).color.replace(/^rgb\\(([^)]*)\\)$/, (_, c) => `rgb(${c.replace(/,/g, ' ')} / ${opacity})`);
        const [a, b] = [light(mix(ink, back)), light(back)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < least.ratio) least = { ratio, what: e.id || e.className || e.tagName, ink, back };
      }
      return least; })()"""
    )
    check(f"the text stands out in {scheme}", least["ratio"] >= 4.5, f"{least['ratio']:.2f} at the least ({least['what']})")


if __name__ == "__main__":
    try:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
    except (TimeoutError, RuntimeError, chromium.Failed, OSError, LookupError) as error:
        check("the page's test runs to its end", False, repr(error))
    sys.stdout.flush()
    # Connections that are still open end with the process.
    os._exit(1 if failures else 0)
