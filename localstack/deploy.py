"""Deploys a template to the stack at AWS_ENDPOINT_URL, and prints its outputs as JSON.

    deploy.py [--template FILE] STACK_NAME [Parameter=Value ...]

The template is deploy/template.yaml, if no other one is given.

Runs in the Python environment of the local stack. On AWS, use `aws cloudformation deploy`.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import boto3
from botocore.exceptions import ClientError, WaiterError

TEMPLATE = Path(__file__).resolve().parent.parent / "deploy/template.yaml"


def main(template, name, parameters):
    cloudformation = boto3.client(
        "cloudformation",
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    wanted = {
        "StackName": name,
        "TemplateBody": template.read_text(),
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
            sys.exit(f"deploying {template} failed: {error}")
    (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    print(json.dumps({output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}))


arguments = argparse.ArgumentParser()
arguments.add_argument("--template", type=Path, default=TEMPLATE)
arguments.add_argument("name")
arguments.add_argument("parameters", nargs="*")
options = arguments.parse_args()
main(options.template, options.name, options.parameters)
