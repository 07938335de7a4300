"""`make measure-memory`: peak memory and time of the consumer and of the auditor on many large files, on the local stack.

    memory.py [--files 20] [--megabytes 50] [--contents 20] [--tracks 20000] [--users 20000] [--catalogued 20000]
              [--uniform] [--gzip] [--rejected] [--only-prepare] [-- FLAG ...]

Flags after -- go to `music-streams run`. The files are seeded and shaped like real ones: a few tracks have most of the
listens, and all listens are of one day. With more files than contents, contents repeat under other names, which are counted
again. With more tracks and listeners the local DynamoDB takes most of an hour.

--catalogued    number of the tracks and listeners that the catalogue has
--uniform       all tracks have about the same number of listens
--gzip          the files are compressed; --megabytes is the size before that
--rejected      every row is one byte, which is no row, and the keys are as long as S3 allows
--only-prepare  kill the consumer some time after its first batch was prepared: peaks come before that, and the local
                DynamoDB takes long for a million items

A million tracks and listeners in the smallest container:

    memory.py --files 12 --contents 4 --tracks 1000000 --users 1000000 --uniform --gzip --only-prepare -- --max-memory 512MiB --max-report-items 100000000
"""

import argparse
import concurrent.futures
import gzip
import io
import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "localstack"))
import local  # noqa: E402

ROW_BYTES = 49
MOST_ROWS = 1_000_000
MOST_SMALL_BYTES = 1_000_000


def compressed(content):
    """Compresses a file that is never in memory as a whole."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as file:
        while piece := content.read(1 << 20):
            file.write(piece)
    return packed.getvalue()


class Listens(io.RawIOBase):
    """A file of listens. Beyond a million rows it repeats itself, and is never in memory as a whole."""

    def __init__(self, seed, rows, tracks, weights, users):
        choose = random.Random(seed)
        few = min(rows, MOST_ROWS)
        listeners = choose.choices(range(1, users + 1), k=few)
        seconds = choose.choices(range(86_400), k=few)
        lines = (f"{user},{track},2024-06-25 {second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}\n"
                 for user, track, second in zip(listeners, choose.choices(tracks, cum_weights=weights, k=few), seconds))
        self.header, self.body = b"user_id,track_id,listen_time\n", "".join(lines).encode()
        self.bytes = len(self.header) + len(self.body) * (rows // few)
        self.rewind()

    @classmethod
    def rejected(cls, rows):
        """Returns a file without a good row."""
        content = cls.__new__(cls)
        content.header, content.body = b"user_id,track_id,listen_time\n", b"x\n" * min(rows, MOST_ROWS)
        content.bytes = len(content.header) + 2 * rows
        return content.rewind()

    def rewind(self):
        self.place, self.left = self.header, self.bytes
        return self

    def readable(self):
        return True

    def read(self, size=-1):
        taken = []
        while size and self.left:
            if not self.place:
                self.place = memoryview(self.body)
            piece = bytes(self.place[:size if size > 0 else self.left])
            self.place = self.place[len(piece):]
            self.left -= len(piece)
            size -= len(piece) if size > 0 else 0
            taken.append(piece)
        return b"".join(taken)


def catalogue(tracks, users, catalogued, uniform):
    """Returns track ids, their cumulated weights, and the catalogue's files, with `catalogued` of the tracks and users."""
    choose = random.Random(1)
    ids = [f"{choose.getrandbits(110):022x}"[:22] for _ in range(tracks)]
    weights = list(itertools.accumulate(1 if uniform else 1 / (rank + 20) for rank in range(tracks)))
    genres = [f"genre-{number}" for number in range(114)]
    songs = "track_id,track_name,artists,track_genre,duration_ms\n" + "".join(
        f"{track},Song {number},Artist {number % 9000},{choose.choice(genres)},{choose.randrange(60_000, 400_000)}\n"
        for number, track in enumerate(ids[:catalogued]))
    countries = "user_id,user_country\n" + "".join(f"{user},Country {user % 150}\n" for user in range(1, min(users, catalogued) + 1))
    return ids, weights, {"reference/songs.csv": songs.encode(), "reference/users.csv": countries.encode()}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--files", type=int, default=20)
    arguments.add_argument("--megabytes", type=float, default=50)
    arguments.add_argument("--contents", type=int, default=20)
    arguments.add_argument("--tracks", type=int, default=20_000)
    arguments.add_argument("--users", type=int, default=20_000)
    arguments.add_argument("--catalogued", type=int, default=20_000)
    for flag in ("--uniform", "--gzip", "--rejected", "--only-prepare"):
        arguments.add_argument(flag, action="store_true")
    arguments.add_argument("flags", nargs="*")
    options = arguments.parse_args()
    tracks, weights, reference = catalogue(options.tracks, options.users, options.catalogued, options.uniform)
    s3, sqs = local.clients()
    environment = local.deploy(time.strftime("memory-%Y%m%d-%H%M%S"))
    bucket = environment["MUSIC_STREAMS_BUCKET"]
    local.put(s3, environment, reference)
    rows = int(options.megabytes * 1_000_000) // (2 if options.rejected else ROW_BYTES)
    rows -= rows % MOST_ROWS if rows > MOST_ROWS else 0
    contents = [Listens.rejected(rows) if options.rejected else Listens(number, rows, tracks, weights, options.users)
                for number in range(min(options.contents, options.files))]
    packed = [compressed(content) for content in contents] if options.gzip else []
    name = "streams{:06}" + ("-" + "k" * 960 if options.rejected else "") + ".csv"
    total = 0
    for number in range(options.files):
        total += contents[number % len(contents)].bytes

    def upload(number):
        content, key = contents[number % len(contents)], f"incoming/{name.format(number)}"
        if packed:
            s3.put_object(Bucket=bucket, Key=key, Body=packed[number % len(packed)])
        elif content.bytes < MOST_SMALL_BYTES:
            s3.put_object(Bucket=bucket, Key=key, Body=content.header + content.body)
        else:
            s3.upload_fileobj(content.rewind(), bucket, key)
        if (number + 1) % max(1, options.files // 20) == 0:
            print(f"  uploaded {number + 1} of {options.files} files", flush=True)

    # Small files several at a time; large ones have several parts each, and may be the same content.
    with concurrent.futures.ThreadPoolExecutor(8 if contents[0].bytes < MOST_SMALL_BYTES else 1) as uploads:
        for _ in uploads.map(upload, range(options.files)):
            pass
    largest = max((len(content) for content in packed), default=0)
    del contents, packed

    started = time.monotonic()
    consumer = local.start(environment, "--window", "5s", "--log-format", "text", *options.flags)
    if options.only_prepare:
        while not any("manifest" in key for key, _ in local.keys(s3, bucket, "batches/")):
            if consumer.poll() is not None or time.monotonic() - started > 3600:
                sys.exit(f"no batch was prepared; the consumer's status is {consumer.returncode}")
            time.sleep(0.5)
        time.sleep(20)
    else:
        local.wait(s3, sqs, environment, consumer, patience_seconds=3600)
    seconds = time.monotonic() - started
    # The kernel's own high-water mark of resident memory.
    status = Path(f"/proc/{consumer.pid}/status").read_text()
    peak_kib = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    if options.only_prepare:
        consumer.kill()
        consumer.wait(timeout=60)
    else:
        local.stop(consumer)
    as_gzip = f" ({largest:,} bytes as gzip)" if largest else ""
    print(f"{options.files} files of {options.megabytes:g} MB{as_gzip}, {rows * options.files:,} rows, {total:,} bytes: "
          f"peak resident memory {peak_kib / 1024:.0f} MiB, {seconds:.0f} s")

    if options.only_prepare or options.rejected:
        return
    command = [str(local.BINARY), "verify", "--date", "2024-06-25"]
    started = time.monotonic()
    auditor = subprocess.Popen(command, env={**os.environ, **local.AWS, **environment})
    _, status, usage = os.wait4(auditor.pid, 0)
    if status:
        sys.exit("the auditor found differences")
    print(f"verify: peak resident memory {usage.ru_maxrss / 1024:.0f} MiB, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
