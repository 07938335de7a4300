"""`make bench-e2e`: many small files, from the close of the window to the last deleted message, with latency added to
every call; and a plain Python consumer on the same, in the same run.

    e2e.py [--files 10000] [--rows 50] [--latency-ms 5] [--plain-files 200] [--gather 10] [--rounds 1]
           [--stack stand-in|local] [--binary PATH] [--flags '...']

On the stand-in for AWS (`benches/stand_in`), which counts requests; `--stack local`, within `stack.py run`, on
LocalStack. The plain consumer works on fewer files, as it would take hours; its time for each file, which does not
depend on how many there are, is scaled up. `--plain-files 0` leaves it out.
"""

import argparse
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from consumer import Consumer, stages  # noqa: E402
from stacks import ROOT, TARGET, Stack, load, wait_until  # noqa: E402

TRACKS, USERS, GENRES = 2000, 2000, 114


def file(seed, rows):
    choose = random.Random(seed)
    track = lambda: min(choose.randrange(TRACKS), choose.randrange(TRACKS))
    time_of_day = lambda: f"{choose.randrange(24):02}:{choose.randrange(60):02}:{choose.randrange(60):02}"
    lines = (f"{choose.randrange(1, USERS + 1)},track{track():017},2024-06-25 {time_of_day()}\n" for _ in range(rows))
    return ("user_id,track_id,listen_time\n" + "".join(lines)).encode()


def deploy(stack, label, files, rows):
    """Makes a pipeline with its catalogue and files. Returns its environment."""
    environment = stack.deploy(f"e2e-{label}-{int(time.time() * 1000) % 10**8}")
    songs = "".join(f"track{track:017},Song {track},Artist {track % 300},genre-{track % GENRES},{60_000 + track}\n"
                    for track in range(TRACKS))
    users = "".join(f"{user},Country {user % 150}\n" for user in range(1, USERS + 1))
    stack.put(environment, {
        "reference/songs.csv": f"track_id,track_name,artists,track_genre,duration_ms\n{songs}".encode(),
        "reference/users.csv": f"user_id,user_country\n{users}".encode(),
    })
    stack.put(environment, {f"incoming/{number:06}.csv": file(number, rows) for number in range(files)})
    return environment


def is_empty(stack, environment):
    """Whether the last message is deleted, which is the last thing that a batch does."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = stack.sqs.get_queue_attributes(QueueUrl=environment["MUSIC_STREAMS_QUEUE_URL"], AttributeNames=names)
    return not any(int(counts["Attributes"][name]) for name in names)


def ours(options):
    stack = Stack(options.stack)
    try:
        environment = deploy(stack, "ours", options.files, options.rows)
        stack.sqs = stack.client("sqs")
        stack.latency(options.latency_ms)
        stack.reset()
        flags = ["--window", "10m", "--max-objects", str(options.files), "--sweep-interval", "0s",
                 "--visibility-timeout", "30m", *shlex.split(options.flags)]
        consumer = Consumer(options.binary, flags, environment)
        wait_until(lambda: consumer.check() or consumer.said("window closed"), "receiving")
        stack_cpu = stack.cpu()
        is_over = lambda: consumer.said("batch done") and is_empty(stack, environment)
        wait_until(lambda: consumer.check() or is_over(), "the batch")
        ended, stack_cpu = time.time(), stack.cpu() - stack_cpu
        (closed,), (done,) = consumer.said("window closed"), consumer.said("batch done")
        if done["objects"] != options.files:
            sys.exit(f"{done['objects']} of {options.files} files in the batch")
        result = {"seconds": ended - closed["at"], "cpu_s": consumer.cpu() - closed["cpu_s"], "stack_cpu_s": stack_cpu,
                  "stages": stages(done), "items": done["report_items"], "requests": stack.counts()[0], "load": load()}
        consumer.stop()
    finally:
        stack.stop()
    requests = {name: count for name, count in result["requests"].items() if name != "SQS GetQueueAttributes"}
    of_reports = sum(count for name, count in requests.items() if name.startswith(("reports", "top lists")))
    result |= {"a_file": (sum(requests.values()) - of_reports) / options.files, "an_item": of_reports / result["items"]}
    print(f"  ours: {result['seconds']:.1f} s from the close of the window, "
          f"{options.files / result['seconds']:,.0f} files a second; {result['stages']}")
    print(f"  CPU: {result['cpu_s']:.1f} s of the consumer, {result['stack_cpu_s']:.1f} s of the stack; "
          f"load {result['load']:.1f}")
    print(f"  {result['a_file']:.2f} requests of S3, SQS and ledger a file, {result['an_item']:.3f} of the reports an "
          f"item, {result['items']:,} items; {dict(sorted(requests.items()))}", flush=True)
    return result


def plain(options):
    stack = Stack(options.stack)
    try:
        environment = deploy(stack, "plain", options.plain_files, options.rows)
        stack.latency(options.latency_ms)
        python = ROOT / ".tools/peers/bin/python"
        command = [str(python), str(HERE / "plain_consumer.py"), "--bucket", environment["MUSIC_STREAMS_BUCKET"],
                   "--queue-url", environment["MUSIC_STREAMS_QUEUE_URL"],
                   "--table-prefix", environment["MUSIC_STREAMS_TABLE_PREFIX"],
                   "--files", str(options.plain_files), "--gather", str(options.gather)]
        output = subprocess.run(
            command, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True).stdout
    finally:
        stack.stop()
    result = json.loads(output.splitlines()[-1])
    scaled = result["seconds"] / result["files"] * options.files
    print(f"  plain: {result['seconds']:.1f} s for {result['files']} files, {result['updates']:,} updates; "
          f"{scaled:,.0f} s for {options.files:,}", flush=True)
    return scaled


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--files", type=int, default=10_000)
    arguments.add_argument("--rows", type=int, default=50)
    arguments.add_argument("--latency-ms", type=float, default=5)
    arguments.add_argument("--plain-files", type=int, default=200)
    arguments.add_argument("--gather", type=int, default=10)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--stack", default="stand-in")
    arguments.add_argument("--binary", type=Path, default=TARGET / "release/music-streams")
    arguments.add_argument("--flags", default="")
    options = arguments.parse_args()
    print(f"{options.files:,} files of {options.rows} rows, {options.latency_ms:g} ms a call, {options.stack}")
    of_ours = statistics.median(ours(options)["seconds"] for _ in range(options.rounds))
    if options.plain_files:
        print(f"  the plain consumer takes {plain(options) / of_ours:.1f} times as long")


main()
