"""`make bench-publish`: the figures of a window into the tables. Counts what AWS would bill, and measures the
consumer's own CPU.

    publish.py [--consumers 1 10 30] [--rows 3472] [--files 20] [--windows 3] [--window 10s] [--latency-ms 5]
               [--rounds 1] [--stack stand-in|dynoxide|local] [--data DIR] [--binary PATH] [--template PATH]
               [--flags '--max-memory 1GiB']
    publish.py --day 1000000

Each consumer gets as many rows in a window as a million listens a day give in five minutes, in `--files` files. All
consumers' windows end together, as far as their `--flags` let them, in which `{index}` and `{count}` stand for numbers:
`--flags '--window-offset {index}s'`. With `--data`, one consumer publishes that folder's
files in one window. With `--day`, one consumer publishes a day of 288 windows, one after the other, and the units of
each table are added up.

Prints a table; what it contains is explained in docs/performance.md.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from pathlib import Path

import listens
from consumer import Consumer, stages
from stacks import ROOT, TARGET, Stack, load, wait_until

REPORTS = tuple(f"{what}_level_reports" for what in ("track", "genre", "listener", "artist", "country", "day", "hour"))
WRITES = ("BatchExecuteStatement", "PutItem")


def seconds(text):
    number, unit = float(text.rstrip("smh")), text[-1]
    return number * {"s": 1, "m": 60, "h": 3600}[unit]


def incoming(files, prefix):
    return {f"incoming/{prefix}-{number:04}.csv": content for number, content in enumerate(files)}


def ready(consumers):
    """Waits until every consumer polls the queue."""
    def all_poll():
        for consumer in consumers:
            consumer.check()
        return all(consumer.said("ready") for consumer in consumers)
    wait_until(all_poll, "the start of the consumers", 300)


def begin_of_window(length):
    """Waits for the first third of a window, so that all files come into the same."""
    while time.time() % length > length / 3:
        time.sleep(0.01)


def figures(stack, batches, closed, before_cpu):
    """What the windows since the last reset took, from logs and counts."""
    requests, tables, failed = stack.counts()
    of = lambda *names: sum(count for name, count in requests.items() if name.split(" ", 1)[0] in names)
    writes = lambda kind: sum(requests.get(f"{kind} {write}", 0) for write in WRITES)
    items = sum(line["report_items"] for line in batches)
    last = max((tables[name]["last_write_ms"] for name in (*REPORTS, "top_lists") if name in tables), default=0) / 1000
    upserts = [stages(line) for line in batches]
    until_upsert = lambda it: sum(it[stage] for stage in it if stage not in ("publish", "archive", "finish"))
    sum_of = lambda what: sum(table[what] for table in tables.values())
    written, failures = sum_of("writes"), failed
    return {
        "items": items, "rows": sum(line["rows"] for line in batches),
        "last_figure_s": last - min(closed) if last else max(map(until_upsert, upserts)),
        "upsert_s": max(it["upsert"] for it in upserts),
        "cpu_s": before_cpu, "requests": requests, "tables": tables,
        "item_writes": writes("reports"), "list_writes": writes("top lists"), "ledger": of("ledger"),
        "reads": sum(count for name, count in requests.items() if name == "reports BatchGetItem"),
        "failed": failures, "failed_of_100": 100 * failures / max(1, written + failures) if tables else None,
        "write_units": sum_of("write_units") + sum_of("failed_units") + sum_of("index_units"),
        "read_units": sum_of("half_read_units") / 2,
    }


def one_round(options, kind, count, files_of, label):
    """Starts a stack and consumers, and publishes `options.windows` windows. Returns the figures of each."""
    stack = Stack(kind, options.template)
    consumers = []
    try:
        environment = stack.deploy(f"publish-{label}-{int(time.time() * 1000) % 10**9}")
        stack.put(environment, options.reference)
        flags = ["--window", options.window, "--sweep-interval", "0s", "--lease", "5m"]
        own_flags = lambda index: shlex.split(options.flags.format(index=index, count=count))
        consumers = [Consumer(options.binary, [*flags, *own_flags(index)], environment) for index in range(count)]
        ready(consumers)
        results = []
        for window in range(options.windows):
            files = files_of(window)
            stack.reset()
            before = [(len(consumer.said("batch done")), len(consumer.said("window closed"))) for consumer in consumers]
            begin_of_window(seconds(options.window))
            stack.put(environment, incoming(files, f"w{window}"))
            # The latency begins when the files are there.
            stack.latency(options.latency_ms)
            results.append(publish(stack, consumers, before, len(files)))
            stack.latency(0)
        return results
    finally:
        for consumer in consumers:
            if consumer.process.poll() is None:
                consumer.stop()
        stack.stop()


def publish(stack, consumers, before, files):
    """Waits until the consumers have published so many files, since they had said so much. Returns the figures."""
    new = lambda message, place: [
        line for consumer, seen in zip(consumers, before) for line in consumer.said(message)[seen[place]:]]

    def done():
        for consumer in consumers:
            consumer.check()
        return sum(line["objects"] for line in new("batch done", 0)) >= files
    stack_cpu = stack.cpu()
    wait_until(done, "a window")
    closed, batches = new("window closed", 1), new("batch done", 0)
    cpu = sum(line["cpu_s"] for line in batches) - sum(line["cpu_s"] for line in closed)
    result = figures(stack, batches, [line["at"] for line in closed], cpu)
    return {**result, "batches": len(batches), "stack_cpu_s": stack.cpu() - stack_cpu, "load": load(),
            "stages": [line["seconds"] for line in batches]}


def show(label, results):
    """One line for the windows of all rounds: medians."""
    median = lambda value: statistics.median(value(result) for result in results)
    items = median(lambda it: it["items"])
    cells = [
        label, f"{items:,.0f}", f"{median(lambda it: it['last_figure_s']):.2f}",
        f"{median(lambda it: it['upsert_s']):.2f}",
        f"{median(lambda it: it['cpu_s'] / it['items'] * 1e6):.0f}",
        f"{median(lambda it: 2 * it['items'] / it['cpu_s']):,.0f}",
        f"{median(lambda it: 20 * it['item_writes'] / it['items']):.2f}", f"{median(lambda it: it['list_writes']):.0f}",
        f"{median(lambda it: it['failed']):.0f}", f"{median(lambda it: it['failed_of_100'] or 0):.2f}",
        f"{median(lambda it: it['write_units']):,.0f}", f"{median(lambda it: it['read_units']):,.0f}",
        f"{median(lambda it: it['stack_cpu_s']):.1f}", f"{median(lambda it: it['load']):.1f}",
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


HEAD = ["consumers, window", "items", "last figure s", "upsert s", "µs CPU an item", "items a second of two cores",
        "write requests for 20 items", "list requests", "failed", "failed of 100", "write units", "read units",
        "stack CPU s", "load"]


def day(options):
    """A day in windows of five minutes, one after the other."""
    windows = 288
    files = listens.Listens(1).day(options.day, windows)
    stack = Stack("stand-in", options.template)
    try:
        environment = stack.deploy(f"day-{int(time.time()) % 10**6}")
        stack.put(environment, options.reference)
        flags = ["--window", "10m", "--max-objects", "1", "--sweep-interval", "0s", *shlex.split(options.flags)]
        consumer = Consumer(options.binary, flags, environment)
        ready([consumer])
        stack.reset()
        stack.put(environment, incoming(files, "day"))
        wait_until(lambda: consumer.check() or len(consumer.said("batch done")) == windows, "the day", 7200)
        consumer.stop()
        requests, tables, failed = stack.counts()
    finally:
        stack.stop()
    batches = consumer.said("batch done")
    items, rows = sum(line["report_items"] for line in batches), sum(line["rows"] for line in batches)
    cpu = batches[-1]["cpu_s"] - consumer.said("window closed")[0]["cpu_s"]
    print(f"{rows:,} listens, {len(batches)} batches, {items:,} items; {cpu:.0f} s of CPU, {2 * items / cpu:,.0f} "
          f"items a second of two cores; {failed} failed conditions", flush=True)
    heads = ["table", "writes", "new items", "KB a write", "write units", "read units", "dollars"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    total = [0, 0, 0]
    for name, table in sorted(tables.items()):
        units = table["write_units"] + table["failed_units"] + table["index_units"]
        read = table["half_read_units"] / 2
        price = units * 0.625e-6 + read * 0.125e-6
        total = [total[0] + units, total[1] + read, total[2] + price]
        size = table["written_bytes"] / max(1, table["writes"]) / 1024
        print(f"| `{name}` | {table['writes']:,} | {table['new_items']:,} | {size:.2f} | {units:,} | {read:,.0f} | "
              f"{price:.2f} |")
    print(f"| together | | | | {total[0]:,} | {total[1]:,.0f} | {total[2]:.2f} |")
    print(json.dumps(requests))


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--consumers", type=int, nargs="+", default=[1, 10, 30])
    arguments.add_argument("--rows", type=int, default=3472)
    arguments.add_argument("--files", type=int, default=20)
    arguments.add_argument("--windows", type=int, default=3)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--window", default="10s")
    arguments.add_argument("--latency-ms", type=float, default=5)
    arguments.add_argument("--stack", default="stand-in")
    arguments.add_argument("--binary", type=Path, default=TARGET / "release/music-streams")
    arguments.add_argument("--template", type=Path, default=ROOT / "deploy/template.yaml")
    arguments.add_argument("--flags", default="")
    arguments.add_argument("--data", type=Path)
    arguments.add_argument("--day", type=int)
    options = arguments.parse_args()
    options.reference, own_files = listens.own(options.data) if options.data else (listens.catalogue(), None)
    if options.day:
        return day(options)
    print(f"{options.latency_ms:g} ms a call, {options.stack}, windows of {options.window}, {options.binary}")
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD), flush=True)
    everything = []
    for count in [1] if own_files else options.consumers:
        draw = listens.Listens(count)
        per_file = -(-options.rows // options.files)
        of_window = count * options.files
        made = [] if own_files else [
            draw.window(per_file, listens.USERS * count) for _ in range(of_window * options.windows)]
        part = lambda window: own_files or made[window * of_window:(window + 1) * of_window]
        rounds = [one_round(options, options.stack, count, part, count) for _ in range(options.rounds)]
        for window in range(options.windows):
            show(f"{count}, {'first' if window == 0 else f'no. {window + 1}'}", [results[window] for results in rounds])
        everything += [{"consumers": count, "windows": results} for results in rounds]
    (ROOT / "target/bench-publish.json").write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    sys.exit(main())
