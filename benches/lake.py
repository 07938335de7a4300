"""`make bench-table`: the table of the curated files, against the stand-in for AWS.

    lake.py [--listens 1000000] [--batches 10000] [--binary PATH] [--before PATH]

A day of 288 windows is counted, and what it takes is compared with a program of before the table, if there is one. The
day is compacted by `music-streams compact`, whose time and memory are measured; DuckDB scans it before and after, by
requests that the stand-in counts, and must find the same. At last, thousands of made-up batches come into a table, one
by one.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import listens
from consumer import Consumer
from publish import incoming, ready
from stacks import ROOT, TARGET, Stack, program, wait_until

WINDOWS = 288
QUERIES = {
    "all genres": "SELECT track_genre, count(*) FROM t GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 3",
    "one track": "SELECT count(*), min(listen_time) FROM t WHERE track_id = (SELECT max(track_id) FROM t)",
    "an hour": "SELECT count(*) FROM t WHERE hour(listen_time) = 12",
}


def count_day(options, binary, files):
    """Counts a day, a batch a window. Returns the stack, its environment, and the requests to S3."""
    stack = Stack("stand-in")
    environment = stack.deploy(f"table-{int(time.time()) % 10**6}")
    stack.put(environment, listens.catalogue())
    flags = ["--window", "10m", "--max-objects", "1", "--sweep-interval", "0s"]
    if "--compact" in subprocess.run([binary, "run", "--help"], capture_output=True, text=True).stdout:
        flags += ["--compact", "never"]
    consumer = Consumer(binary, flags, environment)
    ready([consumer])
    stack.reset()
    stack.put(environment, incoming(files, "day"))
    wait_until(lambda: consumer.check() or len(consumer.said("batch done")) == WINDOWS, "the day", 7200)
    consumer.stop()
    return stack, environment, stack.counts()[0]


def bytes_below(environment, prefix):
    import boto3
    s3 = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], aws_access_key_id="test",
                      aws_secret_access_key="test", region_name="us-east-1")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=environment["MUSIC_STREAMS_BUCKET"], Prefix=prefix)
    sizes = [item["Size"] for page in pages for item in page.get("Contents", [])]
    return len(sizes), sum(sizes)


def scan(stack, environment, date):
    """What DuckDB asks of S3 to answer each query, and the answers."""
    site = next((ROOT / ".tools/checks/lib").glob("python*/site-packages"))
    load = "".join(
        f"LOAD '{next((site / f'duckdb_extension_{name}').glob('extensions/*/*.duckdb_extension'))}';"
        for name in ("httpfs", "delta"))
    host = environment["AWS_ENDPOINT_URL"].split("://")[1]
    secret = (f"CREATE SECRET (TYPE s3, KEY_ID 'test', SECRET 'test', REGION 'us-east-1', ENDPOINT '{host}', "
              "URL_STYLE 'path', USE_SSL false);")
    answers = {}
    for name, query in QUERIES.items():
        table = f"delta_scan('s3://{environment['MUSIC_STREAMS_BUCKET']}/curated')"
        view = f"CREATE VIEW t AS SELECT * FROM {table} WHERE report_date = '{date}';"
        stack.reset()
        begun = time.monotonic()
        output = subprocess.run(
            [site / "duckdb_cli/duckdb", "-unsigned", "-json", "-c", f"{load}{secret}SET TimeZone='UTC';{view}{query}"],
            capture_output=True, text=True)
        seconds = time.monotonic() - begun
        if output.returncode:
            sys.exit(output.stderr)
        requests = stack.counts()[0]
        of_s3 = {name: count for name, count in sorted(requests.items()) if name.startswith("S3 ")}
        answers[name] = (output.stdout.strip(), sum(of_s3.values()), of_s3, seconds)
    return answers


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--listens", type=int, default=1_000_000)
    arguments.add_argument("--batches", type=int, default=10_000)
    arguments.add_argument("--binary", type=Path, default=TARGET / "release/music-streams")
    arguments.add_argument("--before", type=Path)
    options = arguments.parse_args()
    files = listens.Listens(1).day(options.listens, WINDOWS)
    if options.before:
        stack, _, before = count_day(options, options.before, files)
        stack.stop()
        print("before", json.dumps(before), flush=True)
    stack, environment, requests = count_day(options, options.binary, files)
    try:
        print("now", json.dumps(requests), flush=True)
        if options.before:
            more = {name: requests.get(name, 0) - before.get(name, 0) for name in {*requests, *before}}
            print("more a batch:", {name: round(count / WINDOWS, 2) for name, count in sorted(more.items()) if count})
        date = re.search(r"(\d{4}-\d\d-\d\d)", files[0].decode() if isinstance(files[0], bytes) else files[0]).group(1)
        before = scan(stack, environment, date)
        begun, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        output = subprocess.run(["/usr/bin/env", "python3", "-c", MEASURE, str(options.binary), "compact"],
                                env={**os.environ, **environment}, capture_output=True, text=True)
        seconds, now = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        print(output.stdout.strip(), output.stderr.strip())
        cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        print(f"compacted in {seconds:.1f} s, {cpu:.1f} s of CPU")
        for prefix in ("curated/report_date=", "curated/compacted/", "curated/_delta_log/"):
            count, size = bytes_below(environment, prefix)
            print(f"{prefix}: {count} objects, {size / 1e6:.1f} MB")
        after = scan(stack, environment, date)
        print("| DuckDB | requests before | after | seconds before | after |\n|---|---|---|---|---|")
        for name in QUERIES:
            (answer, count, of, time_before), (other, less, of_after, time_after) = before[name], after[name]
            if answer != other:
                sys.exit(f"{name}: {answer} before, {other} after")
            print(f"| {name} | {count} {of} | {less} {of_after} | {time_before:.2f} | {time_after:.2f} |")
    finally:
        stack.stop()
    stack = Stack("stand-in")
    try:
        environment = stack.deploy("entries")
        made = {**os.environ, **environment, "BATCHES": str(options.batches)}
        subprocess.run([program("lake"), environment["MUSIC_STREAMS_BUCKET"]], env=made, check=True)
    finally:
        stack.stop()


# Runs a command, and prints the most memory that it had.
MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB at most", flush=True)
sys.exit(status)
"""

if __name__ == "__main__":
    main()
