"""`make measure-consumers`: the time that one, two and three consumers take for the same files, on the local stack.

    consumers.py [--files 400] [--rows 500] [--rounds 3]

The files are uploaded before the consumers start. The time ends when the last file is archived and the last message deleted.
Each round takes the numbers of consumers in turn; the medians are compared.
"""

import argparse
import random
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "localstack"))
import local  # noqa: E402

FLAGS = ["--window", "1s", "--max-objects", "40", "--log-format", "text"]


def file(seed, rows):
    choose = random.Random(seed)
    lines = (f"{choose.randrange(1, 2000)},track{min(choose.randrange(3000), choose.randrange(3000)):017},2024-06-25 "
             f"{choose.randrange(24):02}:{choose.randrange(60):02}:{choose.randrange(60):02}\n" for _ in range(rows))
    return ("user_id,track_id,listen_time\n" + "".join(lines)).encode()


def measure(consumers, options, label):
    s3, sqs = local.clients()
    environment = local.deploy(f"consumers-{label}-{time.strftime('%H%M%S')}")
    bucket = environment["MUSIC_STREAMS_BUCKET"]
    local.put(s3, environment, {
        "reference/songs.csv": b"track_id,track_name,artists,track_genre,duration_ms\n",
        "reference/users.csv": b"user_id,user_country\n",
    })
    put = lambda number: s3.put_object(Bucket=bucket, Key=f"incoming/{number:05}.csv", Body=file(number, options.rows))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(put, range(options.files)))
    started = time.monotonic()
    running = [local.start(environment, *FLAGS, stderr=subprocess.DEVNULL) for _ in range(consumers)]
    local.wait(s3, sqs, environment, running[0])
    seconds = time.monotonic() - started
    local.stop(*running)
    return seconds


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--files", type=int, default=400)
    arguments.add_argument("--rows", type=int, default=500)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    taken = {1: [], 2: [], 3: []}
    for number in range(options.rounds):
        for consumers, seconds in taken.items():
            seconds.append(measure(consumers, options, f"{number}-{consumers}"))
            print(f"  round {number + 1}: {consumers} consumers took {seconds[-1]:.1f} s", flush=True)
    one = statistics.median(taken[1])
    for consumers, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"{consumers} consumers: {median:.1f} s for {options.files} files of {options.rows} rows, {one / median:.2f} times one")


main()
