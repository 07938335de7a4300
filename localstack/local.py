"""`make local`: runs the whole pipeline once on the local stack, and shows everything that it did.

    local.py [--data DIR] [--window DURATION]    deploy, upload, run a window, show the figures
    local.py --definition FILE [--data DIR]      the same for other events than listens
    local.py --foreground                        deploy, then run the consumer until Ctrl-C
    local.py --demo                              deploy, then send a small file every second, with the page open
    local.py --serve                             the page of the last run, until Ctrl-C

With a definition, DIR has the files of its references in `reference/`, and events anywhere else. The definitions in
`samples/` have events of their own.

Every run deploys a pipeline of its own, so runs do not mix. All of them stay until `make down`.

The measurements in benches/ import this file for the same steps: deploy, put, start, wait and stop.
"""

import argparse
import collections
import csv
import datetime
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import boto3

import sample
import stack

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/release/music-streams"
ENDPOINT = "http://127.0.0.1:4566"
AWS = {
    "AWS_ENDPOINT_URL": ENDPOINT,
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
}
PATIENCE_SECONDS = 600
# The server of the last run: its process, and the pipeline that it shows. `make down` stops it.
SERVER = stack.STATE / "server.json"
PAGE_PORT = 8088

# In host mode DynamoDB also has a port of its own: the same tables, many times faster than through LocalStack.
with socket.socket() as probe:
    if probe.connect_ex(("127.0.0.1", 4567)) == 0:
        AWS["AWS_ENDPOINT_URL_DYNAMODB"] = "http://127.0.0.1:4567"


def say(text=""):
    print(f"  {text}" if text else "", flush=True)


def title(text):
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def clients():
    settings = {"endpoint_url": ENDPOINT, "region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client("s3", **settings), boto3.client("sqs", **settings)


def deploy(name, template=ROOT / "deploy/template.yaml"):
    """Deploys the template, and returns the environment of its consumer."""
    command = [sys.executable, str(ROOT / "localstack/deploy.py"), "--template", str(template), name,
               f"BucketName={name}", f"QueueName={name}", f"TablePrefix={name}-"]
    outputs = json.loads(subprocess.run(command, env={**os.environ, **AWS}, check=True, stdout=subprocess.PIPE).stdout)
    return {
        "MUSIC_STREAMS_BUCKET": outputs["BucketName"],
        "MUSIC_STREAMS_QUEUE_URL": outputs["QueueUrl"],
        "MUSIC_STREAMS_TABLE_PREFIX": outputs["TablePrefix"],
    }


def put(s3, environment, files):
    """Uploads small files, by key."""
    for key, content in files.items():
        s3.put_object(Bucket=environment["MUSIC_STREAMS_BUCKET"], Key=key, Body=content)


def start(environment, *flags, **options):
    """Starts a consumer."""
    command = [str(BINARY), "run", *flags]
    return subprocess.Popen(command, env={**os.environ, **AWS, **environment}, **options)


def stop(*consumers):
    """Stops consumers that must end with status 0."""
    for consumer in consumers:
        consumer.send_signal(signal.SIGTERM)
    if any(consumer.wait(timeout=60) for consumer in consumers):
        sys.exit("a consumer did not end cleanly")


def free_port(preferred):
    """Returns the preferred port if it is free, else another one."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return probe.getsockname()[1]
            except OSError:
                continue
    sys.exit("no port is free")


def serve_command(port):
    return [str(BINARY), "serve", "--address", f"127.0.0.1:{port}", "--personal"]


def open_page(environment):
    """Starts the server of a pipeline's page in the background, in place of the last one. Returns its address."""
    stack.stop_server()
    port = free_port(PAGE_PORT)
    with open(stack.STATE / "server.log", "wb") as log:
        server = subprocess.Popen(serve_command(port), env={**os.environ, **AWS, **environment}, stdin=subprocess.DEVNULL,
                                  stdout=log, stderr=log, start_new_session=True)
    SERVER.write_text(json.dumps({"pid": server.pid, "environment": environment}))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return f"http://127.0.0.1:{port}"
        time.sleep(0.05)
    sys.exit(f"the page was not served; {stack.STATE / 'server.log'} says why")


def serve_last():
    """Serves the page of the last run in the foreground."""
    if not SERVER.exists():
        sys.exit("there is no pipeline to show yet: run make local first")
    environment = json.loads(SERVER.read_text())["environment"]
    stack.stop_server()
    port = free_port(PAGE_PORT)
    say(f"The page: http://127.0.0.1:{port}   (Ctrl-C ends it)")
    os.execve(BINARY, serve_command(port), {**os.environ, **AWS, **environment})


def demo(s3, environment, files):
    """Sends a file of listens of now every second, until Ctrl-C."""
    consumer = start(environment, "--window", "5s", "--log-format", "text")
    say(f"The page, with figures that move: {open_page(environment)}   (Ctrl-C ends it)")
    rows = list(csv.reader(io.StringIO(files["incoming/streams1.csv"].decode())))[1:]
    try:
        for number in range(10**9):
            now = datetime.datetime.now(datetime.UTC)
            listens = [[user, track, f"{now:%Y-%m-%d %H:%M:%S}"] for user, track, _ in
                       (rows[(number * 17 + place * place) % len(rows)] for place in range(5 + number % 30))]
            put(s3, environment, {f"incoming/demo/{number}.csv": sample.table(["user_id", "track_id", "listen_time"], listens)})
            if consumer.poll() is not None:
                sys.exit(f"the consumer ended with status {consumer.returncode}")
            time.sleep(1)
    except KeyboardInterrupt:
        # The consumer got it as well, and ends by itself.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        consumer.wait(timeout=60)
    finally:
        stack.stop_server()
        if consumer.poll() is None:
            stop(consumer)


def own_files(folder):
    """Returns the caller's catalogue and listening files, by key."""
    folder = Path(folder).resolve()
    missing = [name for name in ("songs.csv", "users.csv") if not (folder / name).is_file()]
    streams = sorted([*folder.glob("streams*.csv"), *folder.glob("streams*.csv.gz")])
    if missing or not streams:
        sys.exit(f"{folder} must hold songs.csv, users.csv and at least one streams*.csv; missing: {', '.join(missing) or 'streams*.csv'}")
    files = {f"reference/{name}": folder / name for name in ("songs.csv", "users.csv")}
    return {**files, **{f"incoming/{path.name}": path for path in streams}}


def files_of(definition, folder):
    """Returns the files of references and the events for a definition, by key."""
    if not folder:
        samples = {"orders": sample.orders, "requests": sample.requests}
        if definition.parent.resolve() != ROOT / "localstack/samples" or definition.stem not in samples:
            sys.exit(f"say where the events for {definition} are: make local DEFINITION={definition} DATA=dir")
        return samples[definition.stem]()
    folder = Path(folder).resolve()
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        place = path.relative_to(folder).as_posix()
        files[place if place.startswith("reference/") else f"incoming/{place}"] = path
    if not any(key.startswith("incoming/") for key in files):
        sys.exit(f"{folder} has no events: files outside of its folder reference/")
    return files


def keys(s3, bucket, prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [(item["Key"], item["Size"]) for page in pages for item in page.get("Contents", [])]


def ask(environment, *arguments):
    # Without what it cost to read them: here it is all the same.
    command = [str(BINARY), *arguments, *(["--quiet"] if arguments[0] == "report" else [])]
    ended = subprocess.run(command, env={**os.environ, **AWS, **environment}, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        # It has said why.
        sys.exit(f"{ended.stdout}music-streams {shlex.join(arguments)} ended with status {ended.returncode}")
    return ended.stdout


def show(text):
    for line in text.rstrip().splitlines():
        say(line)


def wait(s3, sqs, environment, consumer, patience_seconds=PATIENCE_SECONDS):
    """Waits until every file has left incoming/ and every message the queue."""
    started = time.monotonic()
    shown = 0
    while True:
        if consumer.poll() is not None:
            sys.exit(f"the consumer ended with status {consumer.returncode}; its log is above")
        left = len(keys(s3, environment["MUSIC_STREAMS_BUCKET"], "incoming/"))
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        counts = sqs.get_queue_attributes(QueueUrl=environment["MUSIC_STREAMS_QUEUE_URL"], AttributeNames=names)["Attributes"]
        messages = sum(int(count) for count in counts.values())
        if not left and not messages:
            return
        seconds = int(time.monotonic() - started)
        if seconds > patience_seconds:
            sys.exit(f"after {seconds} s there are still {left} files and {messages} messages")
        if seconds >= shown + 3:
            shown = seconds
            say(f"… {seconds} s: {left} files in incoming/, {messages} messages in the queue")
        time.sleep(0.5)


def listing(s3, bucket, heading, prefix, most=8):
    found = keys(s3, bucket, prefix)
    title(f"{heading} ({len(found)})")
    for key, size in found[:most]:
        say(f"s3://{bucket}/{key}   {size:,} bytes")
    if len(found) > most:
        say(f"… and {len(found) - most} more")
    return [key for key, _ in found]


def place_of(row):
    """Says where a rejected row is: several records of JSON may be on a line."""
    record = f", record {row['record']}," if "record" in row else ""
    return f"line {row['line']}{record} of {row['object']}"


def rejected(s3, bucket, separator):
    read = lambda key: s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    title("Rejected files, with the reason")
    reasons = [json.loads(read(key)) for key, _ in keys(s3, bucket, "quarantine/objects/") if key.endswith(".reason.json")]
    for note in reasons:
        say(f"{note['object']['key']}: {note['reason']}")
    say() if reasons else say("none")
    title("Rejected rows, with the reason")
    rows = [json.loads(line) for key, _ in keys(s3, bucket, "quarantine/rows/") for line in read(key).splitlines()]
    more = sum(row["unlisted"] for row in rows if "unlisted" in row)
    rows = [row for row in rows if "unlisted" not in row]
    for reason, count in collections.Counter(row["reason"] for row in rows).most_common():
        first = next(row for row in rows if row["reason"] == reason)
        say(f"{count:>5}  {reason}")
        say(f"       such as {place_of(first)}: {separator.join(first['fields'])[:80]}")
    if more:
        say(f"… and {more:,} more in files with very many")
    if not rows:
        say("none")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--data")
    arguments.add_argument("--definition", type=Path)
    arguments.add_argument("--window", default="5s")
    arguments.add_argument("--foreground", action="store_true")
    arguments.add_argument("--demo", action="store_true")
    arguments.add_argument("--serve", action="store_true")
    options = arguments.parse_args()
    if options.serve:
        return serve_last()
    s3, sqs = clients()
    definition, about = options.definition, {"input": {}}
    if definition:
        about = tomllib.loads(ask({}, "definition", "show", str(definition)))
        files = files_of(definition, options.data)
    else:
        files = own_files(options.data) if options.data else sample.files()

    name = "music-streams-local" if options.foreground else time.strftime("music-streams-%Y%m%d-%H%M%S")
    if definition:
        title(f"Deploying the template of {definition}: music-streams definition template {definition}")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as template:
            template.write(ask({}, "definition", "template", str(definition)))
            template.flush()
            environment = deploy(name, template.name)
    else:
        title("Deploying deploy/template.yaml")
        environment = deploy(name)
    bucket = environment["MUSIC_STREAMS_BUCKET"]
    for variable, value in {**AWS, **environment}.items():
        say(f"{variable}={value}")

    def upload(prefix):
        for key, content in files.items():
            if key.startswith(prefix):
                content = content.read_bytes() if isinstance(content, Path) else content
                s3.put_object(Bucket=bucket, Key=key, Body=content)
                say(f"s3://{bucket}/{key}   {len(content):,} bytes")

    title("Uploading the catalogue")
    upload("reference/")
    if definition:
        title(f"Putting it in force: music-streams definition apply {definition}")
        show(ask(environment, "definition", "apply", str(definition), "--yes"))
    if options.foreground:
        title("Running the consumer; Ctrl-C ends it")
        say(f"put files under s3://{bucket}/incoming/")
        os.execve(BINARY, [str(BINARY), "run"], {**os.environ, **AWS, **environment})

    if options.demo:
        title("Running the consumer with windows of 5 seconds, and sending it a file every second")
        return demo(s3, environment, files)

    title(f"Starting the consumer, with windows of {options.window}")
    consumer = start(environment, "--window", options.window, "--log-format", "text")
    try:
        title("Uploading the events" if definition else "Uploading listening files")
        upload("incoming/")
        title("Waiting for the window to close and its batch to finish")
        wait(s3, sqs, environment, consumer)
    finally:
        # A consumer that has ended by itself has failed.
        if consumer.poll() is None:
            consumer.send_signal(signal.SIGTERM)
        status = consumer.wait(timeout=60)
    if status:
        sys.exit(f"the consumer ended with status {status}")

    curated = listing(s3, bucket, "Curated Parquet", "curated/report_date=")
    listing(s3, bucket, "Archive", "archive/")
    listing(s3, bucket, "Quarantine", "quarantine/")
    rejected(s3, bucket, separator_of(about))
    if not curated:
        sys.exit("no row was good, so there is nothing to report")
    sizes = dict(keys(s3, bucket, "curated/report_date="))
    # The last day that is no mere remainder of another.
    whole = [key for key in curated if 2 * sizes[key] >= max(map(sizes.get, curated))]
    date = max(key.split("report_date=")[1].split("/")[0] for key in whole)
    if definition:
        show_reports(environment, about, date)
    else:
        show_listening(environment, date)
    title("The state of the pipeline: music-streams status")
    show(ask(environment, "status"))
    title(f"The audit of the figures: music-streams verify --date {date}")
    show(ask(environment, "verify", "--date", date))
    title("Done. The stack stays up. More questions, for example")
    say("export " + " ".join(f"{name}={value}" for name, value in {**AWS, **environment}.items()))
    if not definition:
        say(f"target/release/music-streams report tracks --date {date}")
    file = next(key for key in files if key.startswith("incoming/"))
    say(f"target/release/music-streams status --object {shlex.quote(f's3://{bucket}/{file}')}")
    say("make down   # stops it, and the page")
    title(f"The page: {open_page(environment)}")


def show_listening(environment, date):
    title(f"Top 5 genres of {date}")
    show(ask(environment, "report", "genres", "--date", date, "--top", "5"))
    genres = json.loads(ask(environment, "report", "genres", "--date", date, "--top", "3", "--format", "json"))
    for genre in (genre["track_genre"] for genre in genres):
        title(f"Top 3 tracks of {genre}")
        show(ask(environment, "report", "tracks", "--date", date, "--under", genre, "--top", "3"))
    for what, report in [("Top 5 artists", "artists"), ("Top 5 countries", "countries"), ("Busiest listeners", "listeners")]:
        title(what)
        show(ask(environment, "report", report, "--date", date, "--top", "5"))
    title("The days, and the hours from the first on")
    show(ask(environment, "report", "days", "*"))
    show("\n".join(ask(environment, "report", "hours", "*").splitlines()[:8]))


def separator_of(definition):
    """Returns what stands between two fields of a file. A record of JSON is one field."""
    usual = {"tsv": "\t", "w3c": "\t"}.get(definition["input"].get("format"), ",")
    return definition["input"].get("delimiter", usual)


def busiest_hour(environment, name, measure):
    """Returns the hour whose list has most by a measure; None if the report has no list of any hour."""
    settings = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
    endpoint = AWS.get("AWS_ENDPOINT_URL_DYNAMODB", AWS["AWS_ENDPOINT_URL"])
    dynamodb = boto3.resource("dynamodb", endpoint_url=endpoint, **settings).meta.client
    pages = dynamodb.get_paginator("query").paginate(
        TableName=f"{environment['MUSIC_STREAMS_TABLE_PREFIX']}top_lists", KeyConditionExpression="#list = :list",
        ExpressionAttributeNames={"#list": "list"}, ExpressionAttributeValues={":list": name})

    def weight(of):
        values = [entry[of["columns"].index(measure)] for entry in of["entries"]]
        # A list may be ordered by the latest time, which is a text.
        return sum(value for value in values if not isinstance(value, str)), len(values)

    lists = [of for page in pages for of in page["Items"]]
    return max(lists, key=weight)["report_date"] if lists else None


def show_reports(environment, about, date):
    """Shows a list of each report, of the day or of its busiest hour, and of each report of all rows its items."""
    for name, report in about["reports"].items():
        is_hourly, top = report.get("every") == "hour", report.get("top")
        if report["key"] == "*":
            title(f"{name}: music-streams report {name} '*'")
            show("\n".join(ask(environment, "report", name, "*").splitlines()[:8]))
        elif top and is_hourly and (hour := busiest_hour(environment, name, top["by"])):
            title(f"{name}, of the busiest hour: music-streams report {name} --date {hour} --top 5")
            show(ask(environment, "report", name, "--date", hour, "--top", "5"))
        elif top and not is_hourly:
            title(f"{name}: music-streams report {name} --date {date} --top 5")
            show(ask(environment, "report", name, "--date", date, "--top", "5"))
        else:
            title(f"{name}: music-streams report {name} KEY{' --date ' + date + 'T12' if is_hourly else ''}")
            say("has an item for each key; ask for one of them")


if __name__ == "__main__":
    main()
