"""Whole transfers through the deployed functions, and what may go wrong between edge and cloud.

Usage: cloud_drive.py BINARIES WORK, with the stack `wb-local` deployed into the emulator that
AWS_ENDPOINT_URL names. Prints `ok …` or `FAILED …`, one line a check; figures in `note` lines.
"""

import hashlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
import uuid

import boto3

from rewrite import rewrite

STACK = "wb-local"
# What the demo's CRM verifies with: its store and its keys live for one demo on loopback.
CRM_SECRET = "whsec_ZGVtby1zaWduaW5nLXNlY3JldC0wMTIzNDU2Nzg5"
QUEUES = ["signals", "decisions", "webhooks-live", "webhooks-durable", "audit.fifo"]
DEMOS = 2
HOPS = 100

BINARIES, WORK = sys.argv[1], sys.argv[2]
cloudformation, dynamodb = boto3.client("cloudformation"), boto3.client("dynamodb")
lambdas, secrets, sqs = boto3.client("lambda"), boto3.client("secretsmanager"), boto3.client("sqs")
failures = 0


def check(what, holds, detail=""):
    global failures
    failures += not holds
    print(f"{'ok' if holds else 'FAILED'} cloud: {what}{f': {detail}' if detail else ''}", flush=True)
    return holds


def note(text):
    print(f"note cloud: {text}", flush=True)


def url(queue):
    return sqs.get_queue_url(QueueName=f"{STACK}-{queue}")["QueueUrl"]


def waiting(queue):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url(queue), AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def until(holds, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.2)
    return holds()


def rows(table, **kwargs):
    found = []
    for page in dynamodb.get_paginator("scan").paginate(TableName=f"{STACK}-{table}", **kwargs):
        found += page["Items"]
    return found


def records(call=None):
    found = [row for row in rows("audit") if row["SK"]["S"].startswith("EVT#")]
    return [row for row in found if call is None or row["PK"]["S"].endswith(f"#C{'#'}{call}")]


def warmbridge(*arguments, **kwargs):
    return subprocess.run([f"{BINARIES}/warmbridge", *arguments], capture_output=True, text=True, timeout=240, **kwargs)


def verify(call=None):
    return warmbridge("audit", "verify", *([call] if call else []), "--dynamodb", f"{STACK}-audit")


def shown(call):
    said = warmbridge("audit", "show", call, "--dynamodb", f"{STACK}-audit", "--json")
    return [json.loads(line) for line in said.stdout.splitlines()]


def start_demo(name, outputs, endpoint=None):
    arguments = ["demo", "--stack", STACK, "--media-bucket", outputs["MediaBucketName"],
                 "--data", f"{WORK}/{name}", "--report", f"{WORK}/{name}.json"]
    log = open(f"{WORK}/{name}.log", "w")
    env = dict(os.environ, AWS_ENDPOINT_URL=endpoint) if endpoint else None
    return subprocess.Popen([f"{BINARIES}/warmbridge", *arguments], stdout=log, stderr=subprocess.STDOUT, env=env)


def open_later(port, seconds):
    """A way to the emulator that is not there at first."""
    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()

    def listen():
        time.sleep(seconds)
        listener = socket.create_server(("127.0.0.1", port))
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", 4566))
            for ends in ((near, far), (far, near)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    return f"http://127.0.0.1:{port}"


def finish_demo(name, process, what):
    code = process.wait(timeout=240)
    if not check(f"{what}: exit 0", code == 0, f"exit {code}" if code else ""):
        print("".join(open(f"{WORK}/{name}.log").readlines()[-40:]))
        return None
    return json.load(open(f"{WORK}/{name}.json"))


def millis(text):
    from datetime import datetime
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").timestamp() * 1000


def spread(figures):
    figures = sorted(figures)
    last = figures[min(len(figures) - 1, int(0.99 * len(figures)))]
    return f"p50 {statistics.median(figures):.0f}, p99 {last:.0f}, n {len(figures)}"


def contract(outputs):
    """The questions that the embedded store answers in every test run."""
    env = dict(os.environ, WB_TABLE_AUDIT=outputs["AuditTableName"], WB_TABLE_PAYLOADS=f"{STACK}-payloads",
               WB_TABLE_TRANSFERS=f"{STACK}-transfers", WB_BUCKET_MEDIA=outputs["MediaBucketName"],
               WB_DATA_KEY=f"alias/{STACK}-data")
    asked = subprocess.run([f"{BINARIES}/ask-contract"], env=env, capture_output=True, text=True, timeout=120)
    print(asked.stdout, end="", flush=True)
    if not check("every question of the contract is answered", asked.returncode == 0):
        print(asked.stderr[-3000:])


def transfers(outputs):
    """Whole transfers: decided by a function, its payload built by a function, recorded."""
    invites, skews, call = [], [], None
    for number in range(DEMOS):
        name = f"demo{number}"
        report = finish_demo(name, start_demo(name, outputs), "a whole transfer through the deployed functions")
        if report is None:
            continue
        call = report["call_id"]
        facts = shown(call)
        kinds = {}
        for fact in facts:
            kinds.setdefault(fact["type"], []).append(fact)
        decided = kinds["transfer.decided"][0]
        built = [fact["body"]["revision"] for fact in kinds["payload.built"]]
        check("decided by evaluate-trigger, payload by build-payload, once each",
              decided["body"]["origin"] == "function" and built.count(2) == 1 and len(kinds["transfer.decided"]) == 1,
              f"{decided['body']['origin']}, revisions {built}")
        delivered = [fact["body"]["message_id"] for fact in kinds.get("webhook.delivered", [])]
        check("every webhook was delivered once", len(delivered) == len(set(delivered)) >= 4, f"{len(delivered)} webhooks")
        evaluated = min(millis(fact["occurred_at"]) for fact in kinds["trigger.evaluated"])
        invites.append(millis(kinds["agent.offered"][0]["occurred_at"]) - evaluated)
        skews.append(report["accept_skew_ms"])
    said = verify()
    check("audit verify --dynamodb exits 0", said.returncode == 0, said.stdout.strip().splitlines()[-1:] or said.stderr[-300:])
    if invites:
        note(f"trigger to first INVITE, ms: {spread(invites)}; accept skew, ms: {spread(skews)} (emulator: no statement about AWS)")
    return call


def stored(row):
    """The message of a row as its producer sent it."""
    import base64
    envelope = json.loads(row["cj"]["B"])
    entry = {name: value for name, value in envelope.items() if name not in ("v", "seq", "prev")}
    message = {"entry": entry}
    if "ct" in row:
        message["ct"] = base64.b64encode(row["ct"]["B"]).decode()
    return message


def repeats(call):
    """Everything again, in another order and twice: nothing changes."""
    before = {(row["PK"]["S"], row["SK"]["S"]): row["hash"]["S"] for row in records()}
    messages = [stored(row) for row in records(call)] * 2
    random.Random(7).shuffle(messages)
    for start in range(0, len(messages), 10):
        # A deduplication id of its own for each, so that the ledger sees every one.
        entries = [{"Id": str(index), "MessageBody": json.dumps(message), "MessageGroupId": call,
                    "MessageDeduplicationId": uuid.uuid4().hex}
                   for index, message in enumerate(messages[start:start + 10])]
        sqs.send_message_batch(QueueUrl=url("audit.fifo"), Entries=entries)
    check("repeats are taken from their queue", until(lambda: waiting("audit.fifo") == 0, 60))
    after = {(row["PK"]["S"], row["SK"]["S"]): row["hash"]["S"] for row in records()}
    check(f"{len(messages)} shuffled repeats change no record", before == after, f"{len(before)} records")
    check("none of them was parked", waiting("parked") == 0)


def entry(call, pseq, producer="test:poison:1"):
    return {"tenant": "t_demo", "chain": call, "producer": producer, "pseq": pseq, "type": "record.accessed",
            "occurred_at": "2026-11-23T10:00:00.000Z", "actor": {"kind": "admin", "id": "operator"},
            "body": {"actor": "operator", "role": "supervisor", "purpose": "test", "object": "payload", "fields": ["*"]}}


def send_audit(call, body):
    sqs.send_message(QueueUrl=url("audit.fifo"), MessageBody=body, MessageGroupId=call,
                     MessageDeduplicationId=uuid.uuid4().hex)


def parked():
    found = []
    while True:
        taken = sqs.receive_message(QueueUrl=url("parked"), MaxNumberOfMessages=10).get("Messages", [])
        if not taken:
            return found
        for message in taken:
            found.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url("parked"), ReceiptHandle=message["ReceiptHandle"])


def invoke(task, request=None):
    answer = lambdas.invoke(FunctionName=f"{STACK}-WriteAudit{task}", Payload=json.dumps(request or {}))
    said = answer["Payload"].read().decode()
    return (None if "FunctionError" in answer else json.loads(said)), said[:300]


def copied(bucket):
    """The bucket of checkpoints as a folder."""
    s3, folder = boto3.client("s3"), f"{WORK}/checkpoints"
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page.get("Contents", []):
            path = f"{folder}/{found['Key']}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            s3.download_file(bucket, found["Key"], path)
    return folder


def checkpoints(call, outputs):
    """What only a checkpoint shows, and that it does."""
    made, said = invoke("Checkpoint")
    check("a checkpoint is signed", made is not None and made["checkpoints"] >= 1 and made["leaves"] >= DEMOS, said)
    again, said = invoke("Checkpoint")
    check("where nothing moved, none is", again is not None and again["checkpoints"] == 0, said)
    folder = copied(outputs["CheckpointsBucketName"])

    def verdict(what, wanted, *arguments):
        answer = warmbridge("audit", "verify", *arguments, "--dynamodb", f"{STACK}-audit")
        check(f"{what}: audit verify exits {wanted}", answer.returncode == wanted,
              f"exit {answer.returncode}: {answer.stdout[-400:]}" if answer.returncode != wanted else "")

    witness = ("--checkpoints", folder)
    verdict("against the checkpoints, signed by the key service", 0, call, *witness)
    table, heads = f"{STACK}-audit", f"{STACK}-audit_head"
    kept = [row for row in rows("audit") if row["PK"]["S"].endswith(f"#C#{call}") or f"#C#{call}#" in row["PK"]["S"]]
    ends = [row for row in rows("audit_head") if row["PK"]["S"].endswith(f"#C#{call}") or f"#C#{call}#" in row["PK"]["S"]]
    key = lambda row: {"PK": row["PK"], "SK": row["SK"]}
    chain = sorted(records(call), key=lambda row: row["SK"]["S"])
    forged = rewrite([(row["SK"]["S"], row["cj"]["B"]) for row in chain])
    by_key = {row["SK"]["S"]: row for row in chain}
    for name, cj, digest in forged:
        dynamodb.put_item(TableName=table, Item=dict(by_key[name], cj={"B": cj}, hash={"S": digest}))
    head = next(row for row in ends if row["PK"]["S"].endswith(f"#C#{call}"))
    dynamodb.put_item(TableName=heads, Item=dict(head, hash={"S": forged[-1][2]}))
    verdict(f"{len(forged)} records rewritten as a whole chain, by the chains alone", 0, call)
    verdict("and against the checkpoints", 1, call, *witness)
    for row in kept:
        dynamodb.delete_item(TableName=table, Key=key(row))
    for row in ends:
        dynamodb.delete_item(TableName=heads, Key=key(row))
    verdict("a call removed, by the chains alone", 0)
    verdict("and against the checkpoints", 1, *witness)
    for row in kept:
        dynamodb.put_item(TableName=table, Item=row)
    for row in ends:
        dynamodb.put_item(TableName=heads, Item=row)
    verdict("put back", 0, *witness)
    watched = boto3.client("logs")

    def told():
        events = watched.filter_log_events(logGroupName=f"/aws/lambda/{STACK}-WriteAuditWatch")["events"]
        return any("a record was tampered with" in event["message"] for event in events)

    check("the watch told of it", until(told, 60))


def edge_of_the_stack(outputs):
    """The edges' part of the template: two slots, each with a group that drains, and the program
    in a layer that an instance can fetch and check."""
    import base64, hashlib, io, urllib.request, zipfile
    groups = boto3.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    names = sorted(group["AutoScalingGroupName"] for group in groups)
    check("each slot has a group of one", names == [f"{STACK}-edge-1", f"{STACK}-edge-2"]
          and all(group["MaxSize"] == 1 for group in groups), names)
    versions = lambdas.list_layer_versions(LayerName=f"{STACK}-edge")["LayerVersions"]
    content = lambdas.get_layer_version_by_arn(Arn=versions[0]["LayerVersionArn"])["Content"]
    body = urllib.request.urlopen(content["Location"]).read()
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    held = zipfile.ZipFile(io.BytesIO(body)).namelist()
    check("the edge's program comes with the deployment, and its digest holds", digest == content["CodeSha256"]
          and {"warmbridge", "boot.sh", "drain.sh", "imds.sh", "warmbridge.service", "warmbridge-drain.service"} <= set(held), held)
    check("the second slot has its command queue", url("commands-edge-2").endswith("commands-edge-2"))


def samples():
    """The sample events of infra/events, each to its function, and what it leads to."""
    call, here = "call_SAMPLE00000000000000000000", os.path.dirname(os.path.abspath(__file__))

    def answer(name, function):
        text = open(f"{here}/../../infra/events/{name}.json").read()
        text = text.replace("https://sqs.us-east-1.amazonaws.com/123456789012/warmbridge-", url("commands-edge-1")[:-len("commands-edge-1")])
        event = json.loads(text)
        for record in event.get("Records", []):
            if name == "evaluate-trigger":
                record["body"] = retold(json.loads(record["body"]), call)
        said = lambdas.invoke(FunctionName=f"{STACK}-{function}", Payload=json.dumps(event))
        return None if "FunctionError" in said else json.loads(said["Payload"].read())

    def sample(name, function, wanted, holds):
        got = answer(name, function)
        check(f"the sample event of {name}", got == wanted and until(holds, 30), got)

    nothing_again = {"batchItemFailures": []}
    sqs.purge_queue(QueueUrl=url("commands-edge-1"))
    sample("evaluate-trigger", "EvaluateTrigger", nothing_again, lambda: waiting("commands-edge-1") >= 1)
    sample("build-payload", "BuildPayload", nothing_again,
           lambda: any(row["call"]["S"] == call for row in rows("payloads")))
    # Nobody listens at its receiver any more, so it is for another try; held, it is not tried.
    comes_again = {"batchItemFailures": [{"itemIdentifier": "00000000-0000-4000-8000-000000000001"}]}
    # By its own id: the payload made above has webhooks of this call on their way too.
    tried = lambda: any("msg_736MNY3D6Z6HWS98MD8X9H8TCS" in row["PK"]["S"] and "attempts" in row for row in rows("transfers"))
    turned("switches", "no-webhooks")
    sample("send-webhook", "SendWebhookDurable", comes_again, lambda: True)
    check("with no-webhooks a webhook waits untried", not tried())
    turned("switches", "none")
    sample("send-webhook", "SendWebhookDurable", comes_again, tried)
    sample("write-audit-append", "WriteAuditAppend", nothing_again,
           lambda: any(row["type"]["S"] == "agent.accepted" for row in records(call)))
    sample("write-audit-erase", "WriteAuditErase", {"destroyed": []}, lambda: any(
        row["type"]["S"] == "hold.legal_placed" for row in records(call)))
    sample("write-audit-watch", "WriteAuditWatch", {"tampered": 1}, lambda: True)
    sample("measure-transfers", "MeasureTransfers", nothing_again,
           lambda: any(call in row["row"]["B"].decode() for row in rows("transfers") if "row" in row))
    check("the sample event of write-audit-close", "closed" in (answer("write-audit-close", "WriteAuditClose") or {}))
    check("the sample event of write-audit-archive", "archived" in (answer("write-audit-archive", "WriteAuditArchive") or {}))
    check("the sample event of write-audit-expire", "told" in (answer("write-audit-expire", "WriteAuditExpire") or {}))
    made = answer("write-audit-checkpoint", "WriteAuditCheckpoint")
    check("the sample event of write-audit-checkpoint", (made or {}).get("leaves", 0) >= 1, made)
    check("no sample event was parked", waiting("parked") == 0)


def exports(call):
    """A call as a vCon and the trail as rows, from the tables."""
    audit = lambda *arguments: warmbridge("audit", *arguments, "--dynamodb", f"{STACK}-audit")
    said = audit("export", call, "--vcon")
    vcon = json.loads(said.stdout) if said.returncode == 0 else {}
    kinds = [dialog["type"] for dialog in vcon.get("dialog", [])]
    check("the call is exported as a vCon with its words", kinds.count("transfer") == 1 and "lisinopril" in said.stdout, kinds or said.stdout[-300:])
    check("the export is recorded", until(lambda: any(fact["type"] == "record.exported" for fact in shown(call)), 60))
    fed = [json.loads(line) for line in audit("feed").stdout.splitlines()]
    own = {row["seq"] for row in fed if row["chain"] == call}
    check("rows of the day are all there, without personal columns",
          own == {int(row["SK"]["S"][4:]) for row in records(call) if row["PK"]["S"].endswith(call)} and "Ortiz" not in json.dumps(fed), f"{len(own)} rows")


def forgotten(call):
    """What the edge keeps of a call that the cloud has: its recordings, and no key to them."""
    import sqlite3
    data = f"{WORK}/demo{DEMOS - 1}"
    states = dict(sqlite3.connect(f"file:{data}/warmbridge.db?mode=ro", uri=True).execute(
        "SELECT wrapped IS NULL, state FROM audit_keys").fetchall())
    check("the edge forgot the key of a forwarded call", states == {1: "forwarded"}, states)
    export = lambda *arguments: warmbridge("recording", "export", call, "--data", data, "--out", f"{WORK}/wav", *arguments)
    check("without the stack its recordings stay shut", export().returncode == 1)
    said = export("--dynamodb", f"{STACK}-audit")
    check("with the stack's key they are exported as recorded", said.returncode == 0
          and said.stdout.count("  as recorded  ") == 3, said.stdout.strip().splitlines()[-1:] or said.stderr[-300:])


def erasure(call):
    """A subject's texts are gone for good, the chain holds, and a hold prevents it."""
    audit = lambda *arguments: warmbridge("audit", *arguments, "--dynamodb", f"{STACK}-audit")
    texts = lambda: sum(1 for fact in shown(call) if fact.get("text"))
    before = texts()
    request = {"tenant": "t_demo", "call": call, "basis": "case 7", "actor": "counsel"}
    held, said = invoke("Erase", dict(request, deed="hold"))
    check("a legal hold is placed", held is not None, said)
    refused = audit("erase", call, "--basis", "GDPR 17", "--actor", "dpo")
    check("a held call is not erased", refused.returncode == 1 and "legal hold" in refused.stdout and texts() == before, refused.stdout.strip())
    released = audit("hold", "release", call, "--basis", "case 7 is closed")
    check("the hold is released", released.returncode == 0, released.stdout.strip())
    erased, said = invoke("Erase", dict(request, deed="erase", basis="GDPR 17", actor="dpo"))
    check("the keys of the call are destroyed", erased is not None, said)
    once_more = audit("erase", call, "--basis", "GDPR 17", "--actor", "dpo")
    check("a second request is answered the same", once_more.returncode == 0, once_more.stdout.strip())
    count = lambda kind: sum(1 for fact in shown(call) if fact["type"] == kind)
    check("what was done is recorded once each",
          until(lambda: count("erasure.executed") == count("hold.legal_placed") == count("hold.legal_released") == 1, 60))
    check(f"of {before} texts none can be read", before > 0 and texts() == 0, f"{texts()} left")
    said = audit("verify", call)
    check("an erased call verifies", said.returncode == 0 and "erased" in said.stdout, said.stdout[-300:])
    bad, said = invoke("Erase", dict(request, deed="erase", everything=True))
    check("a request that is not one is refused", bad is None, said)


def archived(call, outputs):
    """Closed chains under lock, each provable by what lies beside it, and none goes too early."""
    s3, bucket = boto3.client("s3"), outputs["ArchiveBucketName"]
    # The template asks for it; the emulator's CloudFormation leaves it out, its S3 has it.
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    made, said = invoke("Archive")
    check("what no checkpoint holds yet waits", made is not None and made["waiting"] >= 1 and made["unverified"] == 0, said)
    before = made["archived"] if made else 0
    invoke("Checkpoint")
    made, said = invoke("Archive")
    check("closed chains and their side chains are archived",
          made is not None and before + made["archived"] > DEMOS and made["waiting"] + made["unverified"] == 0, said)
    again, said = invoke("Archive")
    check("and only once", again is not None and again["archived"] == 0, said)
    folder = f"{WORK}/archive"
    os.makedirs(folder)
    names = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix=f"t_demo/{call}/")["Contents"]]
    for name in names:
        s3.download_file(bucket, name, f"{folder}/{os.path.basename(name)}")
    main = next(name for name in names if "/main-" in name and name.endswith(".meta.jsonl"))[:-len(".meta.jsonl")]
    lock = s3.get_object_retention(Bucket=bucket, Key=f"{main}.jsonl")["Retention"]
    years = (lock["RetainUntilDate"].timestamp() - time.time()) / 86400 / 365.25
    check("the longest of the classes locks it", lock["Mode"] == "GOVERNANCE" and 5.9 < years < 6.1, f"{lock['Mode']}, {years:.2f} years")
    keyring = f"{copied(outputs['CheckpointsBucketName'])}/keyring.toml"
    path = f"{folder}/{os.path.basename(main)}"
    verdict = lambda: warmbridge("audit", "verify", "--bundle", f"{path}.jsonl", "--proof", f"{path}.proof.json", "--keyring", keyring)
    good = verdict()
    check("an archived chain verifies by its proof alone", good.returncode == 0 and "a signed tree holds" in good.stdout, good.stdout[-200:] or good.stderr[-200:])
    text = open(f"{path}.jsonl").read()
    check("nothing that was said lies under the lock", "lisinopril" not in text and "knee" not in text)
    lines = dict(enumerate(text.encode().splitlines()))
    forged = {**lines, **{number: line for number, line, _ in rewrite(lines.items())}}
    open(f"{path}.jsonl", "wb").write(b"".join(line + b"\n" for line in forged.values()))
    check("one that was rewritten as a whole does not", verdict().returncode == 1)
    check("what is there is as many records as the table has", len(lines) == len([row for row in records(call) if row["PK"]["S"].endswith(call)]), len(lines))
    swept, said = invoke("Expire")
    check("no call goes before its time", swept is not None and not any(swept.values()), said)


def expiry(call, kept, outputs):
    """The end of a call, long after: told, removed, and explained to whoever verifies; and a
    call that is held."""
    env = dict(os.environ, WB_TABLE_AUDIT=outputs["AuditTableName"], WB_BUCKET_ARCHIVE=outputs["ArchiveBucketName"],
               WB_QUEUE_AUDIT=url("audit.fifo"), WB_TABLE_TRANSFERS=f"{STACK}-transfers", WB_DATA_KEY=f"alias/{STACK}-data")

    days = iter(range(1, 31))

    def swept():
        """The next day's pass: what stays is looked at once a day."""
        said = subprocess.run([f"{BINARIES}/ask-contract", "expire", f"2040-01-{next(days):02}T00:00:00.000Z"], env=env,
                              capture_output=True, text=True, timeout=120)
        found = dict(re.findall(r"(\w+): (\d+)", said.stdout)) if said.returncode == 0 else {}
        return {name: int(value) for name, value in found.items() if value != "0"} or said.stdout + said.stderr[-300:]

    s3, bucket = boto3.client("s3"), outputs["ArchiveBucketName"]
    name = s3.list_objects_v2(Bucket=bucket, Prefix=f"t_demo/{call}/main-")["Contents"][0]["Key"]
    deed = lambda what, of: invoke("Erase", {"deed": what, "tenant": "t_demo", "call": of, "basis": "case 8", "actor": "counsel"})[1]
    status = lambda: s3.get_object_legal_hold(Bucket=bucket, Key=name)["LegalHold"]["Status"]
    said = deed("hold", call)
    check("a legal hold holds the archive, too", status() == "ON", said)
    said = deed("release", call)
    check("and lets go of it", status() == "OFF", said)
    deed("hold", kept)
    check("both are recorded", until(lambda: waiting("audit.fifo") == 0, 60))
    # Its side chain moved with the hold.
    came = swept()
    check("a call that is not archived to its end stays", came == {"held": 1, "unarchived": 1}, came)
    invoke("Checkpoint")
    invoke("Archive")
    came = swept()
    keys = [row for row in rows("audit_keys") if row["PK"]["S"].endswith(f"#C#{call}")]
    check("keys go first, and a held call stays", came == {"told": 1, "held": 1}
          and len(keys) == 2 and not any("wrapped_dek" in row for row in keys), came)
    own = lambda: [row for row in rows("audit") if row["PK"]["S"] == "T#t_demo#C##tenant" and row.get("type", {}).get("S") == "retention.expired"]
    check("the tenant's chain tells of it", until(lambda: len(own()) == 1, 60), len(own()))
    check("rows stay until it does", not any("ttl" in row for row in rows("audit")))
    came = swept()
    check("then the table may remove its rows", came == {"expired": 1, "held": 1}, came)
    going = [row for row in rows("audit") if "ttl" in row]
    names = {row["PK"]["S"] for row in going}
    check("all of them and no other", names == {f"T#t_demo#C#{call}", f"T#t_demo#C#{call}#late"}
          and len(going) == sum(row["PK"]["S"] in names for row in rows("audit")), f"{len(going)} rows")
    verdict = lambda what, *arguments: check(f"{what}: audit verify exits 0", (said := warmbridge(
        "audit", "verify", *arguments, "--dynamodb", f"{STACK}-audit")).returncode == 0, said.stdout[-300:] if said.returncode else "")
    invoke("Checkpoint")
    witness = ("--checkpoints", copied(outputs["CheckpointsBucketName"]))
    verdict("marked rows", *witness)
    # The emulator removes nothing by itself; DynamoDB takes the rows one by one, in no order.
    for number, row in enumerate(going):
        dynamodb.delete_item(TableName=f"{STACK}-audit", Key={"PK": row["PK"], "SK": row["SK"]})
        if number == len(going) // 2:
            verdict("half of the rows removed", *witness)
    verdict("all rows removed", *witness)
    said = verify(call)
    check("asked for the call alone, it says what became of it", said.returncode == 0 and "its time was up" in said.stdout, said.stdout[-300:])
    came = swept()
    lock = {"locked": 1, "held": 1}
    check("the archive stays while its lock holds", came == lock, came)


def poison():
    """A record that cannot be handled is parked with its reason, and its call goes on."""
    call = "call_poison"
    for queue in QUEUES[:-1]:
        sqs.send_message(QueueUrl=url(queue), MessageBody="{garbage")
    send_audit(call, json.dumps({"entry": entry(call, 0)}))
    send_audit(call, "{garbage")
    conflicting = entry(call, 0)
    conflicting["body"]["purpose"] = "another"
    send_audit(call, json.dumps({"entry": conflicting}))
    send_audit(call, json.dumps({"entry": entry(call, 1)}))
    check("the records behind a poison record of their call are written", until(lambda: len(records(call)) == 2, 60))
    check("bad records lie in no queue", until(lambda: all(waiting(queue) == 0 for queue in QUEUES), 60),
          {queue: waiting(queue) for queue in QUEUES if waiting(queue)} or "")
    found = parked()
    reasons = sorted(f"{record['queue']}: {record['why']}" for record in found)
    check("each is parked with its reason", len(found) == 6 and all(record["why"] for record in found), reasons)
    check("the conflicting duplicate is one of them", any("another event is recorded" in reason for reason in reasons))


def mappings(enabled):
    for mapping in lambdas.list_event_source_mappings()["EventSourceMappings"]:
        lambdas.update_event_source_mapping(UUID=mapping["UUID"], Enabled=enabled)


def stopped(outputs):
    """The functions stand while a caller asks for a person, and the edge began without any way
    to the cloud: it decides by itself, and everything catches up."""
    mappings(False)
    started = time.monotonic()
    process = start_demo("stopped", outputs, open_later(4577, 12))
    captured = {}

    def capture():
        # The signals that wait: real ones, for the measure of the hops.
        while process.poll() is None and time.monotonic() - started < 58:
            for message in sqs.receive_message(QueueUrl=url("signals"), MaxNumberOfMessages=10, VisibilityTimeout=0).get("Messages", []):
                captured[message["MessageId"]] = message["Body"]
            time.sleep(0.5)

    capture()
    time.sleep(max(0, 60 - (time.monotonic() - started)))
    check("the edge began without the cloud and found it later",
          "the cloud is found" in open(f"{WORK}/stopped.log").read())
    check("nothing is recorded while the functions stand", waiting("audit.fifo") > 20, f"{waiting('audit.fifo')} entries wait")
    mappings(True)
    report = finish_demo("stopped", process, "a transfer while the functions stand for a minute")
    if report is not None:
        facts = shown(report["call_id"])
        decided = [fact for fact in facts if fact["type"] == "transfer.decided"]
        check("it happened by the edge's own decision", len(decided) == 1 and decided[0]["body"]["origin"] == "edge_fallback")
        numbers = [fact["seq"] for fact in facts]
        check("the records caught up, none lost, none twice", numbers == list(range(1, len(numbers) + 1)), f"{len(numbers)} records")
        names = {row["SK"]["S"] for row in rows("payloads") if row["call"]["S"] == report["call_id"]}
        check("the payload exists once per revision", names == {"R#000001", "R#000002"}, sorted(names))
        delivered = [fact["body"]["message_id"] for fact in facts if fact["type"] == "webhook.delivered"]
        check("each webhook was delivered once", len(delivered) == len(set(delivered)) >= 4, f"{len(delivered)} webhooks")
        check("its chain verifies", verify(report["call_id"]).returncode == 0)
    return list(captured.values())


def retold(signal, call):
    """The signal as if it came now, from another call."""
    event = json.loads(json.dumps(signal).replace(signal["subject"], call))
    event["time"] = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    return json.dumps(event)


def triggers(signal, commands):
    sqs.send_message(QueueUrl=url("signals"), MessageBody=retold(signal, "call_try" + uuid.uuid4().hex[:8]))
    answer = sqs.receive_message(QueueUrl=commands, MaxNumberOfMessages=10, WaitTimeSeconds=2)
    for message in answer.get("Messages", []):
        sqs.delete_message(QueueUrl=commands, ReceiptHandle=message["ReceiptHandle"])
    return bool(answer.get("Messages"))


def hops(signals):
    """Signals straight into the queue; how long until the command is there."""
    samples = [sample for sample in map(json.loads, signals) if "evaluable" in sample["data"]]
    commands = url("commands-edge-1")
    sqs.purge_queue(QueueUrl=commands)
    asking = next((sample for sample in samples if triggers(sample, commands)), None)
    if not check("a signal that triggers was seen in the queue", asking is not None, f"{len(samples)} signals"):
        return
    call, sent, arrived = asking["subject"], {}, {}
    done = threading.Event()

    def poll():
        client = boto3.client("sqs")
        while not done.is_set():
            for message in client.receive_message(QueueUrl=commands, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", []):
                command = json.loads(message["Body"])
                # Others may still be on their way from what was tried before.
                if command["body"]["type"] == "transfer.decided" and command["call_id"].startswith("call_hop"):
                    arrived.setdefault(command["call_id"], time.monotonic())
                client.delete_message(QueueUrl=commands, ReceiptHandle=message["ReceiptHandle"])

    threads = [threading.Thread(target=poll) for _ in range(4)]
    for thread in threads:
        thread.start()
    signals_url = url("signals")
    for number in range(HOPS):
        own = f"call_hop{number:04}"
        sent[own] = time.monotonic()
        sqs.send_message(QueueUrl=signals_url, MessageBody=retold(asking, own))
        time.sleep(0.05)
    until(lambda: len(arrived) >= HOPS, 60)
    done.set()
    for thread in threads:
        thread.join()
    if check(f"each of {HOPS} signals gave its command", len(arrived) == HOPS, f"{len(arrived)} commands"):
        note(f"signal sent to command received, ms: {spread([(arrived[own] - sent[own]) * 1000 for own in sent])} (emulator: no statement about AWS)")


def turned(name, value):
    """A parameter of the stack, and the time that the functions take to see it."""
    boto3.client("ssm").put_parameter(Name=f"/{STACK}/{name}", Value=value, Type="String", Overwrite=True)
    time.sleep(11)


def switched(signals, outputs):
    """What an operator turns while the stack runs: whether signals are evaluated, and by what."""
    samples = [sample for sample in map(json.loads, signals) if "evaluable" in sample["data"]]
    commands = url("commands-edge-1")
    asking = next((sample for sample in samples if triggers(sample, commands)), None)
    if asking is None:
        return

    def decided():
        """The policy by which the signal is decided now; nothing where it is not."""
        sqs.purge_queue(QueueUrl=commands)
        own = "call_off" + uuid.uuid4().hex[:8]
        sqs.send_message(QueueUrl=url("signals"), MessageBody=retold(asking, own))
        end = time.monotonic() + 4
        while time.monotonic() < end:
            for message in sqs.receive_message(QueueUrl=commands, WaitTimeSeconds=1).get("Messages", []):
                command = json.loads(message["Body"])
                if command["call_id"] == own and command["body"]["type"] == "transfer.decided":
                    return command["body"]["decision"]["policy_version"]
        return None if waiting("signals") == 0 else "it waits"

    s3, bucket, key = boto3.client("s3"), outputs["MediaBucketName"], f"config/{asking['source'].rsplit('/', 1)[-1]}.json"
    published = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    other = re.sub('(?m)^name = ".*"$', 'name = "pinned"', published["policies"][-1], count=1)
    published["policies"].append(other)
    s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(published))
    pinned = "pinned-" + hashlib.sha256(other.encode()).hexdigest()[:8]
    usual = decided()
    turned("policy", pinned)
    by = decided()
    check("a policy that is pinned decides, whatever the call began with", usual and usual != by == pinned, f"{usual}, then {by}")
    turned("policy", "pinned-00000000")
    check("a version that nobody has published pins nothing", decided() == usual)
    turned("policy", "as-published")
    turned("switches", "no-decisions")
    check("with no-decisions a signal is taken and nothing is decided", decided() is None)
    turned("switches", "none")
    check("and with none it is again", decided() == usual)


def table_down():
    """The table of records is out of reach for a while: entries come again, none is lost."""
    name = f"{STACK}-WriteAuditAppend"
    variables = lambdas.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    visibility = sqs.get_queue_attributes(QueueUrl=url("audit.fifo"), AttributeNames=["VisibilityTimeout"])["Attributes"]
    # Too long to wait for in a test; too few receives for a short one.
    sqs.set_queue_attributes(QueueUrl=url("audit.fifo"), Attributes={"VisibilityTimeout": "5"})
    lambdas.update_function_configuration(
        FunctionName=name, Environment={"Variables": dict(variables, AWS_ENDPOINT_URL_DYNAMODB="http://127.0.0.1:9")})
    call = "call_tabledown"
    send_audit(call, json.dumps({"entry": entry(call, 0)}))
    time.sleep(4)
    check("an entry waits while its table is out of reach", waiting("audit.fifo") == 1 and not records(call))
    lambdas.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
    check("it is written when the table is back", until(lambda: len(records(call)) == 1, 60))
    check("and nothing of it is parked or dead", waiting("parked") == 0 and waiting("audit-dead.fifo") == 0)
    sqs.set_queue_attributes(QueueUrl=url("audit.fifo"), Attributes=visibility)


def tampering(call):
    """Rows changed behind the functions' back."""
    table, row = f"{STACK}-audit", next(row for row in records(call) if row["type"]["S"] == "transfer.decided")
    key = {"PK": row["PK"], "SK": row["SK"]}

    def verdict(what, change):
        change()
        said = verify(call)
        check(f"{what}: audit verify exits 1", said.returncode == 1, f"exit {said.returncode}")
        dynamodb.put_item(TableName=table, Item=row)

    verdict("one word of a record is edited", lambda: dynamodb.put_item(
        TableName=table, Item=dict(row, cj={"B": row["cj"]["B"].replace(b"medication", b"dedication")})))
    verdict("a record is removed", lambda: dynamodb.delete_item(TableName=table, Key=key))
    check("the restored call verifies", verify(call).returncode == 0)
    head = {"PK": {"S": f"HEAD#{row['PK']['S']}"}, "SK": {"S": "HEAD"}}
    kept = dynamodb.get_item(TableName=f"{STACK}-audit_head", Key=head)["Item"]
    dynamodb.delete_item(TableName=f"{STACK}-audit_head", Key=head)
    check("a head is removed: audit verify exits 1", verify(call).returncode == 1)
    dynamodb.put_item(TableName=f"{STACK}-audit_head", Item=kept)


def readable(call):
    """What a person sees in the console: plain attributes, and the queries of the index."""
    row = next(row for row in records(call) if row["type"]["S"] == "trigger.evaluated")
    wanted = {"type", "occurred_at", "actor", "rule", "digest", "seq", "hash"}
    check("a record's attributes are plain", wanted <= set(row), sorted(row))
    day = row["GSI1PK"]["S"]
    found = dynamodb.query(TableName=f"{STACK}-audit", IndexName="GSI1",
                           KeyConditionExpression="GSI1PK = :day AND begins_with(GSI1SK, :type)",
                           ExpressionAttributeValues={":day": {"S": day}, ":type": {"S": "trigger.evaluated#"}})
    check("records are found by day and by type", found["Count"] >= 1, day)
    text = json.dumps([{name: str(value) for name, value in row.items() if name not in ("ct", "cj")} for row in records(call)])
    check("no attribute holds a number or what was said", "+1555" not in text and "knee" not in text)


def closing(call):
    """The task that closes chains, invoked as its schedule would."""
    time.sleep(6)
    answer = lambdas.invoke(FunctionName=f"{STACK}-WriteAuditClose", Payload=b"{}")
    check("chains of ended calls are closed", "FunctionError" not in answer, answer["Payload"].read().decode()[:200])
    listed = warmbridge("audit", "list", "--dynamodb", f"{STACK}-audit", "--json").stdout.splitlines()
    state = next(line["state"] for line in map(json.loads, listed) if line["chain"] == call)
    check("the call's chain is closed", state == "closed", state)
    rows_of = lambda: [row for row in rows("transfers") if "row" in row and call in row["row"]["B"].decode()]
    check("the closed call is measured", until(lambda: len(rows_of()) == 1, 30), len(rows_of()))
    measured = warmbridge("metrics", "--dynamodb", f"{STACK}-audit", "--json")
    figures = json.loads(measured.stdout) if measured.returncode == 0 else {}
    counted = figures.get("figures", {}).get("calls")
    check("metrics --dynamodb counts the calls of the table", counted == DEMOS, counted or measured.stdout[-200:])
    said = verify(call)
    check("the closed chain verifies without a warning", said.returncode == 0 and "warning" not in said.stdout, said.stdout[-200:] if "warning" in said.stdout else "")


def main():
    described = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    secrets.create_secret(Name=f"{STACK}/crm", SecretString=CRM_SECRET)
    edge_of_the_stack(outputs)
    call = transfers(outputs)
    if call is not None:
        repeats(call)
        readable(call)
        closing(call)
        tampering(call)
        checkpoints(call, outputs)
        exports(call)
        forgotten(call)
        archived(call, outputs)
        erasure(call)
        expiry(json.load(open(f"{WORK}/demo0.json"))["call_id"], call, outputs)
    poison()
    table_down()
    signals = stopped(outputs)
    hops(signals)
    switched(signals, outputs)
    contract(outputs)
    # Last: nobody answers at the samples' receiver, and their webhook stays in its queue.
    samples()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
