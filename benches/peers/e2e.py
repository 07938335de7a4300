"""`make bench-e2e`: many small files, from the close of the window to the last deleted message, with latency added to every call;
and a plain Python consumer on the same, in the same run.

    e2e.py [--files 10000] [--rows 50] [--latency-ms 5] [--plain-files 200] [--gather 10]

On the local stack, through a proxy that counts requests. The plain consumer works on fewer files, as it would take hours; its
time for each file, which does not depend on how many there are, is scaled up.
"""

import argparse
import datetime
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "localstack"))
import local  # noqa: E402
from latency import Latency  # noqa: E402

TRACKS, USERS, GENRES = 2000, 2000, 114


def file(seed, rows):
    choose = random.Random(seed)
    lines = (f"{choose.randrange(1, USERS + 1)},track{min(choose.randrange(TRACKS), choose.randrange(TRACKS)):017},2024-06-25 "
             f"{choose.randrange(24):02}:{choose.randrange(60):02}:{choose.randrange(60):02}\n" for _ in range(rows))
    return ("user_id,track_id,listen_time\n" + "".join(lines)).encode()


def deploy(label, files, rows):
    """A pipeline with its catalogue and files; gives its environment."""
    s3, _ = local.clients()
    environment = local.deploy(f"e2e-{label}-{time.strftime('%H%M%S')}")
    bucket = environment["MUSIC_STREAMS_BUCKET"]
    songs = "".join(f"track{track:017},Song {track},Artist {track % 300},genre-{track % GENRES},{60_000 + track}\n" for track in range(TRACKS))
    users = "".join(f"{user},Country {user % 150}\n" for user in range(1, USERS + 1))
    s3.put_object(Bucket=bucket, Key="reference/songs.csv", Body=f"track_id,track_name,artists,track_genre,duration_ms\n{songs}".encode())
    s3.put_object(Bucket=bucket, Key="reference/users.csv", Body=f"user_id,user_country\n{users}".encode())
    put = lambda number: s3.put_object(Bucket=bucket, Key=f"incoming/{number:06}.csv", Body=file(number, rows))
    with ThreadPoolExecutor(4) as threads:
        for number, _ in enumerate(threads.map(put, range(files)), 1):
            if number % 1000 == 0:
                print(f"  {label}: uploaded {number:,} of {files:,} files", flush=True)
    return environment


def counted_as(request):
    """Reports and ledger share a service; only the ledger's calls are of the protocol."""
    head = request.split(b"\r\n", 1)[0].decode(errors="replace")
    if b"DynamoDB_20120810" in request:
        return "ledger" if b"music_streams_ledger" in request else "reports"
    return "SQS" if b"AmazonSQS" in request else f"S3 {head.split(' ')[0]}"


def endpoints(latency):
    direct = lambda name: int(local.AWS.get(f"AWS_ENDPOINT_URL{name}", local.ENDPOINT).rsplit(":", 1)[1])
    s3, dynamodb = latency.proxy(direct(""), counted_as), latency.proxy(direct("_DYNAMODB"), counted_as)
    return {**local.AWS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}", "AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{dynamodb}"}


def wait_until_empty(queue_url, consumer):
    """Until the last message is deleted, which is the last thing that a batch does."""
    _, sqs = local.clients()
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    while any(int(count) for count in sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"].values()):
        if consumer.poll() is not None:
            sys.exit("the consumer ended; see target/bench-e2e.log")
        time.sleep(0.25)


def ours(options):
    environment = deploy("ours", options.files, options.rows)
    latency = Latency(options.latency_ms / 1000)
    command = [str(local.BINARY), "run", "--window", "10m", "--max-objects", str(options.files), "--sweep-interval", "0s",
               "--visibility-timeout", "30m", "--log-format", "json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(HERE.parent.parent / "target/bench-e2e.log", "w+") as log:
        consumer = subprocess.Popen(command, env={**os.environ, **endpoints(latency), **environment}, stderr=log, stdout=log)
        wait_until_empty(environment["MUSIC_STREAMS_QUEUE_URL"], consumer)
        ended = datetime.datetime.now(datetime.UTC)
        consumer.send_signal(signal.SIGTERM)
        if consumer.wait(timeout=60):
            sys.exit("the consumer did not end cleanly")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        log.seek(0)
        lines = [json.loads(line) for line in log if line.startswith("{")]
    said = lambda what: [line for line in lines if line["message"] == what]
    closed, done = said("window closed"), said("batch done")
    if len(closed) != 1 or sum(line["objects"] for line in done) != options.files:
        sys.exit(f"{len(closed)} windows, {len(done)} batches; see target/bench-e2e.log")
    since_close = lambda at: (at - datetime.datetime.fromisoformat(closed[0]["timestamp"])).total_seconds()
    seconds = since_close(ended)
    print(f"  ours: {seconds:.1f} s from the close of the window; stages: {done[0]['seconds']}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"  {cpu_s:.1f} s of CPU, {cpu_s / sum(latency.counts.values()) * 1e6:.0f} µs a request with all else")
    protocol = sum(count for name, count in latency.counts.items() if name != "reports")
    items = done[0]["report_items"]
    print(f"  requests: {dict(sorted(latency.counts.items()))}")
    print(f"  {protocol / options.files:.2f} requests of S3, SQS and ledger a file, {latency.counts['reports'] / items:.2f} of the reports an item, {items:,} items")
    return seconds, protocol / options.files


def plain(options):
    environment = deploy("plain", options.plain_files, options.rows)
    latency = Latency(options.latency_ms / 1000)
    command = [sys.executable, str(HERE / "plain_consumer.py"), "--bucket", environment["MUSIC_STREAMS_BUCKET"],
               "--queue-url", environment["MUSIC_STREAMS_QUEUE_URL"], "--table-prefix", environment["MUSIC_STREAMS_TABLE_PREFIX"],
               "--files", str(options.plain_files), "--gather", str(options.gather)]
    output = subprocess.run(command, env={**os.environ, **endpoints(latency)}, check=True, stdout=subprocess.PIPE, text=True).stdout
    result = json.loads(output.splitlines()[-1])
    scaled = result["seconds"] / result["files"] * options.files
    print(f"  plain: {result['seconds']:.1f} s for {result['files']} files, {result['updates']:,} updates; {scaled:,.0f} s for {options.files:,}")
    return scaled


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--files", type=int, default=10_000)
    arguments.add_argument("--rows", type=int, default=50)
    arguments.add_argument("--latency-ms", type=float, default=5)
    arguments.add_argument("--plain-files", type=int, default=200)
    arguments.add_argument("--gather", type=int, default=10)
    options = arguments.parse_args()
    print(f"{options.files:,} files of {options.rows} rows, {options.latency_ms:g} ms a call", flush=True)
    of_plain = plain(options)
    of_ours, _ = ours(options)
    print(f"  the plain consumer takes {of_plain / of_ours:.1f} times as long")


main()
