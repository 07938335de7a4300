"""Holds calls against an IAM policy that a stack deployed.

    policy.py STACK_NAME OUTPUT_KEY    calls on standard input, as JSON: [[action, resource], ...]

Prints as JSON: the calls that no statement allows, and the pairs of action and resource that no call needed.
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
(arn,) = (output["OutputValue"] for output in stack["Outputs"] if output["OutputKey"] == sys.argv[2])
iam = client("iam")
version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
allowed = {
    (action, resource): False
    for statement in document["Statement"]
    for action in as_list(statement["Action"])
    for resource in as_list(statement["Resource"])
}
forbidden = []
for action, resource in json.load(sys.stdin):
    matching = [pair for pair in allowed if pair[0] == action and fnmatch.fnmatchcase(anywhere(resource), anywhere(pair[1]))]
    if not matching:
        forbidden.append(f"{action} on {resource}")
    for pair in matching:
        allowed[pair] = True
unused = sorted(
    f"{action} on {resource.split(':', 5)[5].removeprefix(sys.argv[1] + '/')}"
    for (action, resource), used in allowed.items()
    if not used
)
print(json.dumps([forbidden, unused]))
