"""The stacks that the benchmarks measure against, each with latency and counts.

* `stand-in`: S3, SQS and DynamoDB in memory, in Rust (`benches/stand_in`). It keeps up, and counts what AWS would bill.
* `dynoxide`: DynamoDB by dynoxide, in memory, behind the same latency; S3 and SQS by the stand-in.
* `local`: what `stack.py run` has started: LocalStack, and dynoxide on disk. Latency is added before both.

Runs in the Python environment of the local stack.
"""

import http.client
import json
import os
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import yaml

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
KEYS = {
    "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
}


class Template(yaml.SafeLoader):
    """CloudFormation's YAML; of its functions only the text is of interest here."""


Template.add_multi_constructor("!", lambda loader, _, node: getattr(node, "value", None))


def tables(template):
    """The tables of a template, as CreateTable takes them, without the prefix of their names."""
    resources = yaml.load(Path(template).read_text(), Template)["Resources"].values()
    for resource in (it["Properties"] for it in resources if it["Type"] == "AWS::DynamoDB::Table"):
        wanted = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
        yield {
            "TableName": resource["TableName"].removeprefix("${TablePrefix}"), "BillingMode": "PAY_PER_REQUEST",
            **{name: resource[name] for name in wanted if name in resource},
        }


def program(name):
    """A program of `benches`, as `cargo build --release --bench NAME` left it."""
    builds = [path for path in (TARGET / "release/deps").glob(f"{name}-*") if not path.suffix]
    if not builds:
        sys.exit(f"build it first: cargo build --release --locked --bench {name}")
    return str(max(builds, key=lambda path: path.stat().st_mtime))


class Service:
    """The stand-in, or one before another service."""

    def __init__(self, before=None):
        command = [program("stand_in"), "--serve", *(["--before", before] if before else [])]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def control(self, what):
        with urllib.request.urlopen(f"{self.url}/_stand_in/{what}") as answer:
            return json.load(answer)

    def cpu(self):
        return cpu_seconds(self.process.pid)


def cpu_seconds(pid):
    """User and system time of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Stack:
    """A stack that lasts as long as the process. Setting it up takes no latency; `measure` begins it."""

    def __init__(self, kind, template=ROOT / "deploy/template.yaml"):
        self.kind, self.template, self.dynoxide = kind, template, None
        if kind == "local":
            self.aws = Service(os.environ["AWS_ENDPOINT_URL"])
            self.dynamodb = Service(os.environ["AWS_ENDPOINT_URL_DYNAMODB"])
        else:
            self.aws = self.dynamodb = Service()
        if kind == "dynoxide":
            self.start_dynoxide()
        self.environment = {
            **KEYS, "AWS_ENDPOINT_URL": self.aws.url, "AWS_ENDPOINT_URL_DYNAMODB": self.dynamodb.url,
        }

    def start_dynoxide(self):
        sys.path.insert(0, str(ROOT / "localstack"))
        import stack as local
        port = local.free_port()
        url = f"http://127.0.0.1:{port}"
        (ROOT / "target").mkdir(exist_ok=True)
        log = ROOT / "target/bench-dynoxide.log"
        command = [str(local.TOOLS / "dynoxide/bin/dynoxide"), "serve", "--host", "127.0.0.1", "--port", str(port)]
        self.dynoxide = local.launch(command, {}, log)
        local.await_answer(self.dynoxide, "dynoxide", url, log)
        self.dynamodb = Service(url)

    def services(self):
        return {service.url: service for service in (self.aws, self.dynamodb)}.values()

    def client(self, name):
        url = self.dynamodb.url if name == "dynamodb" else self.aws.url
        settings = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(name, endpoint_url=url, **settings)

    def deploy(self, name):
        """A bucket, a queue that its new files are announced to, and the tables. Returns the consumers' environment."""
        if self.kind == "local":
            command = [sys.executable, str(ROOT / "localstack/deploy.py"), name,
                       f"BucketName={name}", f"QueueName={name}", f"TablePrefix={name}-"]
            output = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            queue_url = output["QueueUrl"]
        else:
            dynamodb = self.client("dynamodb")
            for table in tables(self.template):
                dynamodb.create_table(**{**table, "TableName": f"{name}-{table['TableName']}"})
            self.client("s3").create_bucket(Bucket=name)
            self.client("sqs").create_queue(QueueName=name)
            queue_url = f"{self.aws.url}/000000000000/{name}"
        return {
            **self.environment, "MUSIC_STREAMS_BUCKET": name, "MUSIC_STREAMS_QUEUE_URL": queue_url,
            "MUSIC_STREAMS_TABLE_PREFIX": f"{name}-",
        }

    def put(self, environment, files):
        """Puts objects into the bucket, by key. Those under incoming/ are announced."""
        bucket = environment["MUSIC_STREAMS_BUCKET"]
        if self.kind == "local":
            s3 = self.client("s3")
            with ThreadPoolExecutor(4) as threads:
                put = lambda file: s3.put_object(Bucket=bucket, Key=file[0], Body=file[1])
                return list(threads.map(put, files.items()))
        # The stand-in looks at no signature.
        connection = http.client.HTTPConnection(self.aws.url.removeprefix("http://"))
        for key, content in files.items():
            connection.request("PUT", f"/{bucket}/{key}", content)
            connection.getresponse().read()

    def latency(self, milliseconds):
        for service in self.services():
            service.control(f"latency/{milliseconds:g}")

    def reset(self):
        for service in self.services():
            service.control("reset")

    def counts(self):
        """Requests by name, tables by name without the prefix, and failed conditions, since the last reset."""
        requests, tables, failed = {}, {}, 0
        for service in self.services():
            counts = service.control("counts")
            requests |= counts["requests"]
            failed += counts["failed_conditions"] or 0
            for name, table in counts["tables"].items():
                tables[name.rsplit("-", 1)[-1]] = table
        return requests, tables, failed + sum(table["failed"] for table in tables.values())

    def cpu(self):
        """CPU time of the stack's own processes."""
        started = [service.process.pid for service in self.services()] + ([self.dynoxide.pid] if self.dynoxide else [])
        others = os.environ.get("MUSIC_STREAMS_TEST_STACK_PIDS", "").split() if self.kind == "local" else []
        return sum(cpu_seconds(pid) for pid in [*started, *others])

    def stop(self):
        for service in self.services():
            service.process.terminate()
        if self.dynoxide:
            self.dynoxide.terminate()


def load():
    """The machine's load over the last minute: others that compute slow everything down but CPU times."""
    return os.getloadavg()[0]


def wait_until(condition, what, seconds=1800):
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            sys.exit(f"{what} took more than {seconds} s")
        time.sleep(0.05)
