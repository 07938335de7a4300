"""Holds calls against IAM policies that a stack deployed.

    policy.py STACK_NAME OUTPUT_KEY...    calls on standard input, as JSON: [[action, resource, key or null], ...]

Prints as JSON: the calls that no statement allows, and the rights that no call needed: pairs of action and resource,
and of a statement on condition of partition keys one for each of them.
"""

import fnmatch
import json
import os
import sys

import boto3


def as_list(value):
    return value if isinstance(value, list) else [value]


def anywhere(resource):
    """Local databases have regions and accounts of their own."""
    parts = resource.split(":")
    return ":".join([*parts[:3], "", "", *parts[5:]])


def client(service):
    return boto3.client(
        service,
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


(stack,) = client("cloudformation").describe_stacks(StackName=sys.argv[1])["Stacks"]
arns = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
iam = client("iam")


def statements(arn):
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    return iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]["Statement"]


def keys(statement):
    """The patterns of the partition keys that a statement is about; [None] if it is about any."""
    condition = statement.get("Condition", {})
    unknown = set(condition) - {"ForAllValues:StringLike", "ForAllValues:StringEquals"}
    if unknown or any(set(of) != {"dynamodb:LeadingKeys"} for of in condition.values()):
        sys.exit(f"a condition that this program does not know: {condition}")
    return [key for of in condition.values() for key in as_list(of["dynamodb:LeadingKeys"])] or [None]


def allows(right, call):
    action, resource, key = right
    return (
        action == call[0]
        and fnmatch.fnmatchcase(anywhere(call[1]), anywhere(resource))
        and (key is None or (call[2] is not None and fnmatch.fnmatchcase(call[2], key)))
    )


allowed = {
    (action, resource, key): False
    for name in sys.argv[2:]
    for statement in statements(arns[name])
    for action in as_list(statement["Action"])
    for resource in as_list(statement["Resource"])
    for key in keys(statement)
}
forbidden = set()
for call in json.load(sys.stdin):
    matching = [right for right in allowed if allows(right, call)]
    if not matching:
        forbidden.add(f"{call[0]} on {call[1]}" + (f" of {call[2]}" if call[2] else ""))
    for right in matching:
        allowed[right] = True
unused = sorted(
    f"{action} on {resource.split(':', 5)[5].removeprefix(sys.argv[1] + '/')}" + (f" of {key}" if key else "")
    for (action, resource, key), used in allowed.items()
    if not used
)
print(json.dumps([sorted(forbidden), unused]))
