"""Static checks of the template: what an emulator does not enforce and a reviewer overlooks.

Usage: template.py TEMPLATE. Plants its own faults first: a check that finds none of them is
not one.
"""

import copy
import re
import sys

from cfnlint.decode import cfn_yaml

VISIBILITY_FACTOR = 6


def statements(resource):
    given = [policy["PolicyDocument"] for policy in resource["Properties"].get("Policies", [])]
    document = resource["Properties"].get("PolicyDocument")
    for each in given + ([document] if document else []):
        # A statement that depends on a condition is judged as if it held.
        yield from (said["Fn::If"][1] if "Fn::If" in said else said for said in each["Statement"])


def arn_of(resource):
    """The logical id that a resource of a statement names, or its text."""
    if "Fn::GetAtt" in resource:
        target = resource["Fn::GetAtt"]
        return target.split(".")[0] if isinstance(target, str) else target[0]
    if "Fn::If" in resource:
        return arn_of(resource["Fn::If"][1])
    if "Ref" in resource:
        return resource["Ref"]
    return text_of(resource)


def text_of(resource):
    given = resource.get("Fn::Sub", "")
    return given if isinstance(given, str) else given[0]


def is_own(role, text, statement):
    """What the instance of a slot may reach although its name holds a star: its program's
    versions, its configuration, its group, and what bears the slot's name."""
    slot = f"edge-{role.removeprefix('Edge').removesuffix('Role')}"
    if text.endswith((":layer:${AWS::StackName}-edge:*", f"/edge/{slot}/*", f":autoScalingGroupName/${{AWS::StackName}}-{slot}")):
        return True
    named = {"StringEquals": {"aws:ResourceTag/Name": {"Fn::Sub": f"${{AWS::StackName}}-{slot}"}}}
    return text.endswith((":instance/*", ":network-interface/*")) and statement.get("Condition") == named


def is_speech(statement):
    """The one action whose service knows no resource; it may send words to the stack's region alone."""
    return (statement["Action"], statement["Resource"]) == (["polly:SynthesizeSpeech"], ["*"]) and \
        statement.get("Condition") == {"StringEquals": {"aws:RequestedRegion": {"Ref": "AWS::Region"}}}


def slot_faults(resources, slot, other):
    """A slot is complete, and reaches nothing of the other one."""
    number = slot.removeprefix("Edge")
    parts = (f"{slot}Address", f"{slot}Volume", f"{slot}Drain", f"{slot}Template", f"{slot}Role", f"{slot}SilentAlarm",
             f"Commands{slot}Queue", f"Commands{slot}DeadLetters", f"Commands{slot}DeadLettersAlarm")
    missing = [part for part in parts if part not in resources]
    yield from (f"{slot}: a slot without {part}" for part in missing)
    if missing:
        return
    if str(resources[f"{slot}Group"]["Properties"]["MaxSize"]) != "1":
        yield f"{slot}: two instances race for its address"
    drain = resources[f"{slot}Drain"]["Properties"]
    if (drain["LifecycleTransition"], drain["DefaultResult"]) != ("autoscaling:EC2_INSTANCE_TERMINATING", "CONTINUE"):
        yield f"{slot}: its instance goes without draining"
    role, text = resources[f"{slot}Role"], str(resources[f"{slot}Role"])
    if other in text or f"edge-{other.removeprefix('Edge')}" in text:
        yield f"{slot}: reaches what is {other}'s"
    if resources[f"{slot}SilentAlarm"]["Properties"]["TreatMissingData"] != "breaching":
        yield f"{slot}: nobody notices that it is gone"
    volume = resources[f"{slot}Volume"]["Properties"]
    if "KmsKeyId" not in volume or not volume.get("Encrypted"):
        yield f"{slot}: its spool is in the clear"
    grants = [each for each in statements(role) if "kms:CreateGrant" in each["Action"]]
    if not grants:
        yield f"{slot}: cannot attach a disk with the stack's key"
    for each in grants:
        if each.get("Condition") != {"Bool": {"kms:GrantIsForAWSResource": "true"}}:
            yield f"{slot}: could pass the stack's key on"
    data = resources[f"{slot}Template"]["Properties"]["LaunchTemplateData"]
    tagged = {each["ResourceType"] for each in data["TagSpecifications"]
              if each["Tags"][0]["Value"] == {"Fn::Sub": f"${{AWS::StackName}}-edge-{number}"}}
    if tagged != {"instance", "network-interface"}:
        yield f"{slot}: its role does not know its own instance"
    script = data["UserData"]["Fn::Base64"]["Fn::Sub"][0]
    if "CodeSha256" not in script or '= "$digest" ]' not in script:
        yield f"{slot}: starts a program that nobody checked"


def edge_faults(resources, kinds, parameters):
    for name in sorted(name for name, kind in kinds.items() if kind == "AWS::EC2::LaunchTemplate"):
        data = resources[name]["Properties"]["LaunchTemplateData"]
        metadata = data.get("MetadataOptions", {})
        if metadata.get("HttpTokens") != "required" or metadata.get("HttpPutResponseHopLimit") != 1:
            yield f"{name}: its metadata can be read without a token"
        if not all(each["Ebs"].get("Encrypted") for each in data["BlockDeviceMappings"]):
            yield f"{name}: its disk is in the clear"
    rules = list(resources["EdgeSecurityGroup"]["Properties"]["SecurityGroupIngress"])
    rules += [resources[name]["Properties"] for name, kind in kinds.items() if kind == "AWS::EC2::SecurityGroupIngress"]
    for rule in rules:
        if rule["FromPort"] <= 22 <= rule["ToPort"]:
            yield "a shell can be reached from outside"
        if rule["FromPort"] <= 5060 <= rule["ToPort"] and not isinstance(rule["CidrIp"], dict):
            yield "SIP can be reached by everybody"
    for parameter in ("TrunkCidr", "SecondTrunkCidr"):
        pattern = parameters[parameter].get("AllowedPattern", "")
        if re.search(pattern, "0.0.0.0/0") or not re.search(pattern, "203.0.113.0/24"):
            yield f"{parameter}: everybody could be named"
    for name, kind in sorted(kinds.items()):
        if kind in ("AWS::EC2::EIP", "AWS::EC2::Volume") and resources[name].get("Condition") != "WithSlots":
            yield f"{name}: refused by an emulator"
        if kind.startswith(("AWS::EC2::", "AWS::AutoScaling::")) and "Condition" not in resources[name]:
            yield f"{name}: paid for by whoever runs the edge elsewhere"
    slots = sorted(name.removesuffix("Group") for name, kind in kinds.items() if kind == "AWS::AutoScaling::AutoScalingGroup")
    if len(slots) != 2 or len({str(resources[f"EdgeSubnet{slot[-1]}"]["Properties"]["AvailabilityZone"]) for slot in slots}) != 2:
        yield "the slots do not stand in two zones"
        return
    for slot, other in zip(slots, reversed(slots)):
        yield from slot_faults(resources, slot, other)
    layer = resources["EdgeLayer"]
    if layer["Metadata"] != {"BuildMethod": "makefile", "BuildArchitecture": "arm64"}:
        yield "EdgeLayer: not built for its instances"


def faults(template):
    resources = template["Resources"]
    kinds = {name: resource["Type"] for name, resource in resources.items()}
    by_kind = lambda kind: {name for name, of in kinds.items() if of == kind}
    roles = by_kind("AWS::IAM::Role") | by_kind("AWS::IAM::ManagedPolicy")
    functions = by_kind("AWS::Serverless::Function")
    alarmed = str([resources[name] for name in by_kind("AWS::CloudWatch::Alarm")])

    for name in sorted(roles):
        for statement in statements(resources[name]):
            where = f"{name} {statement.get('Sid')}"
            for action in statement["Action"]:
                if "*" in action:
                    yield f"{where}: the action {action} is not one action"
            if name == "EdgePolicy" and is_speech(statement):
                continue
            for resource in statement["Resource"]:
                if not isinstance(resource, dict) or arn_of(resource).strip() in ("", "*"):
                    yield f"{where}: the resource {resource} names nothing"
                text = text_of(resource)
                if name == "WriteAuditCheckpointRole" and text.endswith(":s3:::${Bucket}/*"):
                    continue
                if re.fullmatch("Edge[0-9]Role", name) and is_own(name, text, statement):
                    continue
                if name in ("WriteAuditArchiveRole", "WriteAuditExpireRole", "WriteAuditEraseRole") and text == "${ArchiveBucket.Arn}/*":
                    continue
                if name == "WriteAuditArchiveRole" and text.endswith(":s3:::${Bucket}/*") and statement["Action"] == ["s3:GetObject"]:
                    continue
                if "*" in text and not text.endswith(("/config/*", "/t/*", "-commands-*", "secret:${AWS::StackName}/*")):
                    yield f"{where}: the resource {text} is too wide"

    for name in sorted(functions):
        properties = resources[name]["Properties"]
        role = properties["Role"]["Fn::GetAtt"]
        if (role if isinstance(role, str) else role[0]).split(".")[0] != f"{name}Role":
            yield f"{name}: its role is not its own"
        for event in properties.get("Events", {}).values():
            if event["Type"] != "SQS":
                continue
            given = event["Properties"]
            if given.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
                yield f"{name}: one bad record fails its whole batch"
            queue = arn_of(given["Queue"])
            visibility = resources[queue]["Properties"]["VisibilityTimeout"]
            if visibility < VISIBILITY_FACTOR * properties["Timeout"]:
                yield f"{queue}: visible again before {name} is done"

    for name in sorted(by_kind("AWS::SQS::Queue")):
        if "KmsMasterKeyId" not in resources[name]["Properties"]:
            yield f"{name}: not encrypted with the stack's key"
        if name.endswith("DeadLetters") or name == "ParkedQueue":
            continue
        redrive = resources[name]["Properties"].get("RedrivePolicy")
        if not redrive:
            yield f"{name}: no dead letters"
            continue
        dead = arn_of(redrive["deadLetterTargetArn"])
        if f"'{dead}" not in alarmed:
            yield f"{dead}: no alarm"
        if dead not in resources:
            yield f"{name}: its dead letters are nowhere"
            continue
        fifo = [resources[each]["Properties"].get("FifoQueue", False) for each in (name, dead)]
        if fifo[0] != fifo[1]:
            yield f"{dead}: not of the kind of {name}"

    for name in sorted(by_kind("AWS::DynamoDB::Table")):
        table = resources[name]
        properties = table["Properties"]
        if table.get("DeletionPolicy") != "Retain" or table.get("UpdateReplacePolicy") != "Retain":
            yield f"{name}: goes with the stack"
        if not properties.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled"):
            yield f"{name}: no recovery"
        if "KMSMasterKeyId" not in properties.get("SSESpecification", {}):
            yield f"{name}: not encrypted with the stack's key"
        if "DeletionProtectionEnabled" not in properties:
            yield f"{name}: not protected in production"

    for name in sorted(role for role in roles if role.startswith("WriteAudit")):
        given = list(statements(resources[name]))
        denied = {action for each in given if each["Effect"] == "Deny" for action in each["Action"]
                  if "AuditTable" in map(arn_of, each["Resource"])}
        marks = [each for each in given if each["Effect"] == "Allow" and "dynamodb:UpdateItem" in each["Action"]
                 and "AuditTable" in map(arn_of, each["Resource"])]
        for each in marks:
            named = each.get("Condition", {}).get("ForAllValues:StringEquals", {}).get("dynamodb:Attributes")
            if name != "WriteAuditExpireRole" or not named or set(named) != {"PK", "SK", "ttl"}:
                yield f"{name}: could change more of a record than when it may go"
        for action in ("dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem"):
            if action not in denied and not (marks and action == "dynamodb:UpdateItem"):
                yield f"{name}: {action} on the records is not denied"
        if any("s3:BypassGovernanceRetention" in each["Action"] for each in given):
            yield f"{name}: could pass a lock"
        allowed = {(action, arn_of(resource)) for each in given if each["Effect"] == "Allow"
                   for action in each["Action"] for resource in each["Resource"]}
        if name not in ("WriteAuditEraseRole", "WriteAuditExpireRole") and any("AuditKeysTable" in resource for _, resource in allowed):
            yield f"{name}: whoever appends could erase"
        if name not in ("WriteAuditAppendRole", "WriteAuditCloseRole"):
            if ("dynamodb:PutItem", "AuditTable") in allowed:
                yield f"{name}: whoever signs, watches or erases could append"
            for each in given:
                if "dynamodb:UpdateItem" in each["Action"] and "AuditHeadTable" in map(arn_of, each["Resource"]):
                    named = each.get("Condition", {}).get("ForAllValues:StringEquals", {}).get("dynamodb:Attributes")
                    if not named or {"seq", "hash", "state"} & set(named):
                        yield f"{name}: could move the end of a chain"
                    if "hold" in (named or []) and name != "WriteAuditEraseRole":
                        yield f"{name}: could lift a legal hold"

    yield from edge_faults(resources, kinds, template["Parameters"])

    for name in sorted(roles - {"WriteAuditCheckpointRole"}):
        if any("kms:Sign" in each["Action"] for each in statements(resources[name])):
            yield f"{name}: could sign checkpoints"

    for name in sorted(by_kind("AWS::S3::Bucket")):
        bucket = resources[name]
        if bucket.get("DeletionPolicy") != "Retain":
            yield f"{name}: goes with the stack"
        closed = bucket["Properties"].get("PublicAccessBlockConfiguration", {})
        if len(closed) != 4 or not all(value is True for value in closed.values()):
            yield f"{name}: could be made public"
        policies = str([resources[each] for each in by_kind("AWS::S3::BucketPolicy")
                        if resources[each]["Properties"]["Bucket"] == {"Ref": name}])
        if "aws:SecureTransport" not in policies:
            yield f"{name}: open without TLS"
    locked = resources["CheckpointsBucket"]["Properties"]
    rule = locked.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {})
    if not locked.get("ObjectLockEnabled") or "COMPLIANCE" not in str(rule.get("Mode")):
        yield "CheckpointsBucket: a checkpoint could be replaced"

    if not resources["ArchiveBucket"]["Properties"].get("ObjectLockEnabled"):
        yield "ArchiveBucket: an archived call could be replaced"
    for table in ("AuditTable", "AuditHeadTable"):
        if not resources[table]["Properties"].get("TimeToLiveSpecification", {}).get("Enabled"):
            yield f"{table}: keeps what its time has come for"

    for name in sorted(roles - {"EdgePolicy"}):
        writes = [each for each in statements(resources[name])
                  if each["Effect"] == "Allow" and "AuditTable" in map(arn_of, each["Resource"])
                  and {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"} & set(each["Action"])]
        if writes and not name.startswith("WriteAudit"):
            yield f"{name}: writes the records"


def plants(template):
    """The template with one fault each, and a word of what must be said of it."""
    def planted(word, change):
        broken = copy.deepcopy(template)
        change(broken["Resources"])
        return word, broken

    def first(statement_holder):
        return statement_holder["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]

    yield planted("not one action", lambda r: first(r["BuildPayloadRole"])[1].update(Action=["sqs:*"]))
    yield planted("names nothing", lambda r: first(r["BuildPayloadRole"])[1].update(Resource=["*"]))
    yield planted("too wide", lambda r: first(r["BuildPayloadRole"])[1].update(
        Resource=[{"Fn::Sub": "${MediaBucket.Arn}/*"}]))
    yield planted("EdgePolicy Speech: the resource", lambda r: next(
        each for each in statements(r["EdgePolicy"]) if each["Sid"] == "Speech").pop("Condition"))
    yield planted("not its own", lambda r: r["BuildPayload"]["Properties"].update(
        Role={"Fn::GetAtt": ["EvaluateTriggerRole", "Arn"]}))
    yield planted("whole batch", lambda r: r["EvaluateTrigger"]["Properties"]["Events"]["Queue"]["Properties"].pop(
        "FunctionResponseTypes"))
    yield planted("visible again", lambda r: r["SignalsQueue"]["Properties"].update(VisibilityTimeout=29))
    yield planted("no dead letters", lambda r: r["AuditQueue"]["Properties"].pop("RedrivePolicy"))
    yield planted("no alarm", lambda r: r.pop("DecisionsDeadLettersAlarm"))
    yield planted("not of the kind", lambda r: r["AuditDeadLetters"]["Properties"].pop("FifoQueue"))
    yield planted("not encrypted", lambda r: r["ParkedQueue"]["Properties"].pop("KmsMasterKeyId"))
    yield planted("goes with the stack", lambda r: r["AuditTable"].pop("DeletionPolicy"))
    yield planted("no recovery", lambda r: r["AuditHeadTable"]["Properties"].pop("PointInTimeRecoverySpecification"))
    yield planted("is not denied", lambda r: first(r["WriteAuditAppendRole"]).__delitem__(
        next(i for i, s in enumerate(first(r["WriteAuditAppendRole"])) if s["Effect"] == "Deny")))
    yield planted("could erase", lambda r: first(r["WriteAuditAppendRole"])[2].update(
        Effect="Allow", Resource=[{"Fn::GetAtt": ["AuditKeysTable", "Arn"]}]))
    yield planted("writes the records", lambda r: first(r["SendWebhookLiveRole"])[1].update(
        Action=["dynamodb:PutItem"], Resource=[{"Fn::GetAtt": ["AuditTable", "Arn"]}]))
    yield planted("could append", lambda r: first(r["WriteAuditEraseRole"])[1].update(
        Action=["dynamodb:PutItem"], Resource=[{"Fn::GetAtt": ["AuditTable", "Arn"]}]))
    yield planted("could move the end", lambda r: next(
        each for each in first(r["WriteAuditCheckpointRole"]) if each["Sid"] == "Unmark").pop("Condition"))
    yield planted("more of a record", lambda r: next(
        each for each in first(r["WriteAuditExpireRole"]) if each["Sid"] == "Marks").pop("Condition"))
    yield planted("could lift", lambda r: next(
        each for each in first(r["WriteAuditExpireRole"]) if each["Sid"] == "Ends")["Condition"]["ForAllValues:StringEquals"][
            "dynamodb:Attributes"].append("hold"))
    yield planted("pass a lock", lambda r: first(r["WriteAuditExpireRole"])[1].update(
        Action=["s3:BypassGovernanceRetention"], Resource=[{"Fn::GetAtt": ["ArchiveBucket", "Arn"]}]))
    yield planted("archived call could be replaced", lambda r: r["ArchiveBucket"]["Properties"].pop("ObjectLockEnabled"))
    yield planted("its time has come", lambda r: r["AuditTable"]["Properties"].pop("TimeToLiveSpecification"))
    yield planted("could sign", lambda r: first(r["WriteAuditAppendRole"])[1].update(
        Action=["kms:Sign"], Resource=[{"Fn::GetAtt": ["SigningKey", "Arn"]}]))
    yield planted("could be replaced", lambda r: r["CheckpointsBucket"]["Properties"].pop("ObjectLockConfiguration"))
    yield planted("made public", lambda r: r["MediaBucket"]["Properties"]["PublicAccessBlockConfiguration"].update(
        BlockPublicAcls=False))
    launch = lambda r: r["Edge1Template"]["Properties"]["LaunchTemplateData"]
    yield planted("without a token", lambda r: launch(r)["MetadataOptions"].update(HttpTokens="optional"))
    yield planted("in the clear", lambda r: launch(r)["BlockDeviceMappings"][0]["Ebs"].update(Encrypted=False))
    rules = lambda r: r["EdgeSecurityGroup"]["Properties"]["SecurityGroupIngress"]
    yield planted("by everybody", lambda r: rules(r)[0].update(CidrIp="0.0.0.0/0"))
    yield planted("a shell", lambda r: rules(r)[3].update(FromPort=22))
    yield planted("by an emulator", lambda r: r["Edge2Address"].update(Condition="WithEdge"))
    yield planted("paid for", lambda r: r["EdgeVpc"].pop("Condition"))
    yield planted("a slot without", lambda r: r.pop("CommandsEdge2Queue"))
    said = lambda r, role, sid: next(each for each in first(r[role]) if each["Sid"] == sid)
    yield planted("too wide", lambda r: said(r, "Edge1Role", "Slot").pop("Condition"))
    yield planted("reaches what is", lambda r: said(r, "Edge1Role", "Commands").update(
        Resource=[{"Fn::GetAtt": ["CommandsEdge2Queue", "Arn"]}]))
    yield planted("attach a disk", lambda r: first(r["Edge2Role"]).remove(said(r, "Edge2Role", "Disk")))
    yield planted("pass the stack's key", lambda r: said(r, "Edge1Role", "Disk").pop("Condition"))
    yield planted("its own instance", lambda r: launch(r)["TagSpecifications"].pop())
    yield planted("nobody checked", lambda r: launch(r)["UserData"]["Fn::Base64"]["Fn::Sub"].__setitem__(0, "curl | sh"))
    yield planted("without Edge1SilentAlarm", lambda r: r.pop("Edge1SilentAlarm"))
    yield planted("nobody notices", lambda r: r["Edge2SilentAlarm"]["Properties"].update(TreatMissingData="ignore"))
    yield planted("race for", lambda r: r["Edge1Group"]["Properties"].update(MaxSize="2"))
    yield planted("without draining", lambda r: r["Edge2Drain"]["Properties"].update(DefaultResult="ABANDON"))
    yield planted("spool is in the clear", lambda r: r["Edge1Volume"]["Properties"].pop("KmsKeyId"))
    yield planted("two zones", lambda r: r["EdgeSubnet2"]["Properties"].update(
        AvailabilityZone=r["EdgeSubnet1"]["Properties"]["AvailabilityZone"]))
    yield planted("built for its instances", lambda r: r["EdgeLayer"]["Metadata"].update(BuildArchitecture="x86_64"))
    yield planted("CommandsEdge2Queue: no dead letters", lambda r: r["CommandsEdge2Queue"]["Properties"].pop("RedrivePolicy"))
    open_trunk = copy.deepcopy(template)
    open_trunk["Parameters"]["TrunkCidr"].pop("AllowedPattern")
    yield "everybody could be named", open_trunk
    yield planted("without TLS", lambda r: r.pop("CheckpointsBucketPolicy"))


def main():
    template = cfn_yaml.load(sys.argv[1])
    blind = [word for word, broken in plants(template) if not any(word in fault for fault in faults(broken))]
    found = list(faults(template))
    for word in blind:
        print(f"the planted fault was not found: {word}")
    for fault in found:
        print(fault)
    return 1 if blind or found else 0


if __name__ == "__main__":
    sys.exit(main())
