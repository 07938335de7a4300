"""`make bench-serve`: what reading costs. Counts days of listening into a stack of its own, and asks `music-streams serve`.

    serve.py [--days 56] [--tracks 2000] [--listeners 1500] [--listens 20000] [--rounds 5] [--latency-ms 5] [--binary PATH]
             [--definition FILE]

Server, load, DynamoDB (dynoxide) and everything else share this machine, so each line of load says how busy the
server and its load were: if neither was near a core, the machine was taken by others. Latencies are counted from the
time at which a request was due, so that a pause counts for all who wait. Prints tables; docs/performance.md explains them.
"""

import argparse
import asyncio
import datetime
import gzip
import multiprocessing
import os
import random
import re
import signal
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/browser"))

from pipelines import HEADER, Gate, Pipeline, Server, local, sample, until

LAST = datetime.date(2024, 6, 25)
CONNECTIONS = 32
SECONDS = 8
VIEWERS = 100


def files(options):
    """Listens of many days: tracks by a law of powers that drifts, listeners by another."""
    choose = random.Random(3)
    tracks = [f"track{number:017}" for number in range(options.tracks)]
    songs = [[number, track, f"Artist {number % 700}", "Album", f"Song {number}", 1, choose.randrange(90_000, 420_000), "False",
              sample.GENRES[number * number % len(sample.GENRES)]] for number, track in enumerate(tracks)]
    users = [[user, "name", 30, sample.COUNTRIES[user % len(sample.COUNTRIES)], "2024-01-01"] for user in range(1, options.listeners + 1)]
    made = {
        "reference/songs.csv": sample.table(sample.SONG_COLUMNS, songs),
        "reference/users.csv": sample.table(["user_id", "user_name", "user_age", "user_country", "created_at"], users),
    }
    for age in range(options.days):
        day = LAST - datetime.timedelta(days=age)
        weights = [(1.2 + (rank * 31 + age) % 7 / 7) / (rank + 9) ** 0.8 for rank in range(options.tracks)]
        rows = [[int(options.listeners * choose.random() ** 1.7) + 1, track, f"{day} {choose.randrange(24):02}:{choose.randrange(60):02}:00"]
                for track in choose.choices(tracks, weights, k=options.listens)]
        # Every track has a listen a day, so that each day has an item for each.
        rows += [[1 + number % options.listeners, track, f"{day} 12:00:00"] for number, track in enumerate(tracks)]
        made[f"incoming/{day}.csv"] = sample.table(HEADER, rows)
    return made


class Client(asyncio.Protocol):
    """A connection that asks the same question again and again, one at a time, and reads no more of an answer than it must."""

    def __init__(self):
        self.buffer, self.answered = b"", None

    def connection_made(self, transport):
        self.transport = transport

    def ask(self, request):
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answered

    def connection_lost(self, error):
        if self.answered and not self.answered.done():
            self.answered.set_exception(ConnectionError(str(error)))

    def data_received(self, data):
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        status = int(self.buffer[9:12])
        length = re.search(rb"content-length: (\d+)", self.buffer[:end]) if status != 304 else None
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self.buffer) >= whole:
            self.buffer = self.buffer[whole:]
            self.answered.set_result(status)


async def ask_often(port, requests, rate, seconds, connections):
    """Asks at a rate, or without one as often as answers come. Returns latencies in ms, statuses, and the time it took."""
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(connections)]
    latencies, statuses, number = [], {}, iter(range(10**9))
    began = loop.time() + 0.1
    await asyncio.sleep(0.1)

    async def work(client):
        for at in number:
            due = began + at / rate if rate else loop.time()
            # What is not asked until the end is not asked: the rate was more than could be answered.
            if max(due, loop.time()) >= began + seconds:
                return
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            status = await client.ask(requests[at % len(requests)])
            latencies.append((loop.time() - due) * 1000)
            statuses[status] = statuses.get(status, 0) + 1
    await asyncio.gather(*map(work, clients))
    took = loop.time() - began
    for client in clients:
        client.transport.close()
    return latencies, statuses, took


def cpu_seconds(pid="self"):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load_process(port, requests, rate, seconds, connections, pipe):
    before = cpu_seconds()
    result = asyncio.run(ask_often(port, requests, rate, seconds, connections))
    pipe.send((*result, cpu_seconds() - before))


def request(path, **headers):
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def load(server, requests, rate, seconds=SECONDS, connections=CONNECTIONS, processes=1):
    """Load of processes of its own. Returns latencies, statuses, requests a second, and cores of server and load."""
    pipes, before = [multiprocessing.Pipe() for _ in range(processes)], cpu_seconds(server.process.pid)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=load_process, args=(server.port, requests, rate and rate / processes, seconds, connections, pipe))
               for _, pipe in pipes]
    for worker in workers:
        worker.start()
    results = [pipe.recv() for pipe, _ in pipes]
    server_cpu = cpu_seconds(server.process.pid) - before
    for worker in workers:
        worker.join()
    latencies = sorted(value for result in results for value in result[0])
    statuses = {}
    for result in results:
        for status, count in result[1].items():
            statuses[status] = statuses.get(status, 0) + count
    took = max(result[2] for result in results)
    return latencies, statuses, len(latencies) / took, server_cpu / took, sum(result[3] for result in results) / took


def quantile(ordered, part):
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


def timing(headers):
    """Milliseconds, calls and read units of an answer, by its own account."""
    found = re.search(r'dur=([\d.]+);desc="(\d+) calls, ([\d.]+) units"', headers["Server-Timing"])
    return float(found[1]), int(found[2]), float(found[3])


def memory(server, name="VmRSS"):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.M)[1]) / 1024


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(*cells):
    print(flush=True)
    row(*cells)
    row(*["---"] * len(cells))


def settled(server):
    """Waits until figures are kept: they are not for five seconds after a change."""
    def is_kept():
        server.get("/?days=28")
        return timing(server.get("/api/v1/top/tracks?days=28&against=none")[1])[1] == 0
    until(is_kept, "figures that are kept", 60, 1)


def cold(pipeline, gates, rounds):
    """The first answer of a new server, and what it costs."""
    head("page, cold", "added a call", "p50 ms", "slowest ms", "calls", "read units", "bytes", "gzipped")
    for path in ("/?days=1", "/?days=28", "/?days=28&against=none", "/?days=56&against=none"):
        for label, gate in gates:
            times, cost, size = [], None, None
            for _ in range(rounds):
                server = Server(pipeline, dynamodb=gate and gate.url, refresh="1h")
                try:
                    # The clients' own start, and the registry's plan, are no part of a question.
                    server.get("/ready")
                    status, headers, body = server.get(path, **{"Accept-Encoding": "gzip"})
                    if status != 200:
                        sys.exit(f"{path}: status {status}")
                    millis, *cost = timing(headers)
                    times.append(millis)
                    size = (len(gzip.decompress(body)), len(body))
                finally:
                    server.stop()
            row(f"`{path}`", label, f"{statistics.median(times):.0f}", f"{max(times):.0f}", cost[0], f"{cost[1]:g}", f"{size[0]:,}", f"{size[1]:,}")


def after_a_batch(pipeline, server, rounds):
    head("`/?days=28` again", "p50 ms", "slowest ms", "calls", "read units")
    kinds = {"nothing has changed": [], "just after a batch of the last day": [], "the next one, still within 5 s of it": [],
             "the first one that is kept again": []}
    for number in range(rounds):
        settled(server)
        kinds["nothing has changed"].append(timing(server.get("/?days=28")[1]))
        batch = server.json("/api/v1/freshness")["batch"]
        rows = [[user, f"track{user % 50:017}", f"{LAST} 13:00:00"] for user in range(1, 400)]
        pipeline.put({f"incoming/later-{time.monotonic_ns()}.csv": sample.table(HEADER, rows)})

        def is_done():
            now = server.json("/api/v1/freshness")
            return now["batch"] != batch and not now["updating"]
        until(is_done, "the batch")
        kinds["just after a batch of the last day"].append(timing(server.get("/?days=28")[1]))
        kinds["the next one, still within 5 s of it"].append(timing(server.get("/?days=28")[1]))
        time.sleep(8)
        kinds["the first one that is kept again"].append(timing(server.get("/?days=28")[1]))
    for kind, values in kinds.items():
        times, calls, units = zip(*values)
        row(kind, f"{statistics.median(times):.1f}", f"{max(times):.1f}", f"{statistics.median(calls):.0f}", f"{statistics.median(units):g}")


def under_load(server):
    head("under load", "a second", "p50 ms", "p99 ms", "slowest ms", "answers", "µs of the server each",
         "cores of the server", "cores of the load")
    # A page asks every ten seconds: 20 a second are those of 200 viewers.
    for name, path, at_rate in (("API, `top/tracks?days=28`", "/api/v1/top/tracks?days=28", 1000), ("page, `/?days=28`", "/?days=28", 20)):
        settled(server)
        etag = server.get(path)[1]["ETag"]
        asks = {"kept body, gzipped": request(path, Accept_Encoding="gzip"), "304": request(path, If_None_Match=etag)}
        for what, ask in asks.items():
            for rate in (at_rate, None):
                processes = 1 if rate else 2
                latencies, statuses, found, own, other = load(server, [ask], rate, connections=CONNECTIONS // processes, processes=processes)
                answers = ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))
                row(f"{name}: {what}" + ("" if rate else ", the most"), f"{found:,.0f}", f"{quantile(latencies, 0.5):.2f}",
                    f"{quantile(latencies, 0.99):.2f}", f"{latencies[-1]:.1f}", answers, f"{own / found * 1e6:.0f}",
                    f"{own:.2f}", f"{other:.2f}")


def viewers(pipeline, gate, seconds=30):
    """Calls that DynamoDB sees while one page, and then many, are open and a batch is counted in between."""
    head("viewers of `/?days=28`, each asking every ten seconds", "seconds", "batches", "answers", "calls that DynamoDB saw")
    for count in (1, VIEWERS):
        server = Server(pipeline, dynamodb=gate.url, refresh="10s")
        try:
            settled(server)
            time.sleep(2)
            before = gate.calls
            rows = [[user, f"track{user % 50:017}", f"{LAST} 13:00:00"] for user in range(1, 400)]
            pipeline.put({f"incoming/later-{time.monotonic_ns()}.csv": sample.table(HEADER, rows)})
            _, statuses, *_ = load(server, [request("/?days=28", Accept_Encoding="gzip")], count / 10, seconds, count)
            row(count, seconds, 1, ", ".join(f"{number:,} × {status}" for status, number in sorted(statuses.items())), f"{gate.calls - before:,}")
        finally:
            server.stop()


def starting(pipeline, rounds):
    times = {"/live": [], "/ready": []}
    for path in times:
        for _ in range(rounds):
            server = Server.__new__(Server)
            began = time.monotonic()
            server.__init__(pipeline, refresh="1h")
            until(lambda: server.status(path) == 200, path, 30, 0.001)
            times[path].append((time.monotonic() - began) * 1000)
            server.stop()
    head("start", "p50 ms", "slowest ms")
    for path, values in times.items():
        row(f"until `{path}` answers, asked every 2 ms", f"{statistics.median(values):.0f}", f"{max(values):.0f}")


def resident(pipeline, options):
    """Memory of a server that was asked nothing, a page, and so much that its cache is full."""
    server = Server(pipeline, refresh="1h")
    try:
        server.get("/ready")
        idle = memory(server)
        settled(server)
        page, asked = memory(server), 0
        began = time.monotonic()
        for days in (1, 7, 28, 56):
            for age in range(0, min(options.days, 28)):
                to = LAST - datetime.timedelta(days=age)
                for report in ("tracks", "genres"):
                    server.get(f"/api/v1/top/{report}?days={days}&to={to}&limit={min(1000, 10_000 // days)}", **{"Accept-Encoding": "gzip"})
                    asked += 1
                if time.monotonic() - began > 90:
                    break
        head("memory", "MiB")
        row("idle", f"{idle:.0f}")
        row("after pages of 28 days", f"{page:.0f}")
        row(f"after {asked} rankings of up to 1,000 rows, the cache of 64 MiB full", f"{memory(server):.0f}")
        row("the most it ever had", f"{memory(server, 'VmHWM'):.0f}")
    finally:
        server.stop()


def sizes(server):
    head("first visit", "bytes", "gzipped")
    page = gzip.decompress(server.get("/?days=28", **{"Accept-Encoding": "gzip"})[2]).decode()
    whole = [0, 0]
    for path in ["/?days=28", *("/" + path for path in re.findall(r'(?:href|src)="\./(assets/[^"]+)"', page))]:
        small, plain = (server.get(path, **{"Accept-Encoding": coding})[2] for coding in ("gzip", "identity"))
        row(f"`{re.sub(r'[0-9a-f]{12}', 'HASH', path)}`", f"{len(plain):,}", f"{len(small):,}")
        whole = [whole[0] + len(plain), whole[1] + len(small)]
    row("together", *(f"{size:,}" for size in whole))


def main():
    arguments = argparse.ArgumentParser()
    for name, default in (("days", 56), ("tracks", 2000), ("listeners", 1500), ("listens", 20_000), ("rounds", 5), ("latency-ms", 5)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    arguments.add_argument("--binary", type=Path, default=local.BINARY)
    arguments.add_argument("--definition", type=Path)
    options = arguments.parse_args()
    local.BINARY, local.say = options.binary.resolve(), lambda *_: None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    pipeline = Pipeline("bench", files(options), options.definition, patience=1200)
    try:
        rows = options.days * (options.listens + options.tracks)
        print(f"{options.days} days of {options.listens + options.tracks:,} listens ({rows:,}), {options.tracks:,} tracks, {options.listeners:,} "
              f"listeners, {len(sample.GENRES)} genres; counted in {time.monotonic() - began:.0f} s; load of the machine {os.getloadavg()[0]:.1f}")
        gate, slow = Gate(), Gate()
        slow.delay_s = options.latency_ms / 1000
        cold(pipeline, [("–", None), (f"{options.latency_ms} ms, and a proxy's", slow)], options.rounds)
        server = Server(pipeline, refresh="1h")
        try:
            sizes(server)
            after_a_batch(pipeline, server, options.rounds)
            under_load(server)
        finally:
            server.stop()
        viewers(pipeline, gate)
        starting(pipeline, options.rounds)
        resident(pipeline, options)
        print(f"\nload of the machine at the end {os.getloadavg()[0]:.1f}, {time.monotonic() - began:.0f} s in all")
    finally:
        pipeline.stop()


if __name__ == "__main__":
    main()
