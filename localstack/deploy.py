"""Deploys deploy/template.yaml to the stack at AWS_ENDPOINT_URL, and prints its outputs as JSON.

    deploy.py STACK_NAME [Parameter=Value ...]

Runs in the Python environment of the local stack. On AWS, use `aws cloudformation deploy`.
"""

import json
import os
import sys
from pathlib import Path

import boto3
from botocore.exceptions import ClientError, WaiterError

TEMPLATE = Path(__file__).resolve().parent.parent / "deploy/template.yaml"


def main(name, *parameters):
    cloudformation = boto3.client(
        "cloudformation",
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    wanted = {
        "StackName": name,
        "TemplateBody": TEMPLATE.read_text(),
        "Capabilities": ["CAPABILITY_IAM"],
        "Parameters": [dict(zip(("ParameterKey", "ParameterValue"), p.split("=", 1))) for p in parameters],
    }
    try:
        cloudformation.create_stack(**wanted)
        waiter = "stack_create_complete"
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("AlreadyExistsException", "ValidationError"):
            raise
        waiter = None
    if waiter:
        try:
            cloudformation.get_waiter(waiter).wait(StackName=name, WaiterConfig={"Delay": 0.3, "MaxAttempts": 400})
        except WaiterError as error:
            for event in cloudformation.describe_stack_events(StackName=name)["StackEvents"]:
                print(event["LogicalResourceId"], event["ResourceStatus"], event.get("ResourceStatusReason", ""), file=sys.stderr)
            sys.exit(f"deploying {TEMPLATE} failed: {error}")
    (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    print(json.dumps({output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}))


main(*sys.argv[1:])
