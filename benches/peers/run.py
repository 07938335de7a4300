"""Compares music-streams' compute path with DuckDB, Polars and PySpark: same input, same job, same machine, in turn.

`run.py [--rows N ...] [--rounds 5] [--systems NAME ...]`. Every run is a process of its own. Before a time is believed, the results of
all systems are compared with each other. Prints medians and leaves them in `target/bench-peers.json`.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import datasketches
import duckdb
import psutil
import pyarrow.parquet as pq

import data

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "target"
OURS = "music-streams"
JOBS = {"duckdb": "duckdb_job.py", "polars": "polars_job.py", "pyspark": "spark_job.py"}
# The peers' columns of key and period, and the distinct counts.
REPORTS = {
    "tracks": ("track_id", "date", ["unique_users"]),
    "genres": ("track_genre", "date", ["unique_users"]),
    "listeners": ("user_id", "date", ["unique_tracks"]),
    "artists": ("artist", "date", ["unique_users"]),
    "countries": ("user_country", "date", ["unique_users"]),
    "days": ("'*'", "date", ["unique_users", "unique_tracks"]),
    "hours": ("'*'", "hour", ["unique_users"]),
}
SAMPLE_S, LIMIT_S = 0.05, 1800


def high_water(pid):
    """Peak resident memory of a process, in bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def measure(command, out):
    """Runs a job; returns what it said, with wall, CPU and peak memory of its whole tree of processes."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    began = time.time()
    process = subprocess.Popen(
        [*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "BENCH_STARTED_AT": repr(began)},
    )
    root, cpu, peak = psutil.Process(process.pid), {}, 0
    while True:
        resident = 0
        try:
            for member in [root, *root.children(recursive=True)]:
                with member.oneshot():
                    times = member.cpu_times()
                    cpu[member.pid] = times.user + times.system
                    resident += member.memory_info().rss
                # The kernel's own high-water mark, which no sample misses.
                peak = max(peak, high_water(member.pid))
        except (psutil.Error, OSError):
            pass
        peak = max(peak, resident)
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if time.time() - began > LIMIT_S:
            process.kill()
        time.sleep(SAMPLE_S)
    wall = time.time() - began
    said = process.stdout.read().strip().splitlines()
    if status != 0 or not said:
        raise RuntimeError(f"{command[0]} ended with status {status}")
    # The kernel's figure is exact for one process; a tree whose parts outlive each other is what was sampled. Its peak of
    # memory is of no use: it begins with that of this process, from which the job was forked.
    cpu_s = max(usage.ru_utime + usage.ru_stime, sum(cpu.values()))
    size = sum(file.stat().st_size for file in (out / "curated").rglob("*.parquet"))
    return {**json.loads(said[-1]), "wall_s": wall, "cpu_s": cpu_s, "peak_rss": peak, "output_bytes": size}


def curated(out):
    """What tells curated rows apart, whatever their order: counts, nulls and a sum of hashes by date."""
    columns = ["user_id", "track_id", "listen_time", "track_name", "artists", "track_genre", "duration_ms", "user_country",
               "source_key"]
    nulls = ", ".join(f"count(*) FILTER ({column} IS NULL)" for column in columns)
    # Empty and missing are one: CSV does not tell them apart, and readers of it differ.
    hashed = ", ".join("epoch_us(listen_time)" if column == "listen_time" else f"nullif({column}::VARCHAR, '')"
                       for column in columns)
    query = f"""SELECT date::VARCHAR, count(*), sum(hash({hashed})::HUGEINT), {nulls}
        FROM read_parquet('{out}/curated/**/*.parquet', hive_partitioning = true) GROUP BY 1 ORDER BY 1"""
    return duckdb.execute(query).fetchall()


def reports(system, out):
    """The reports, each as {(id, beginning of the day or hour): (listens, milliseconds, distinct counts)}."""
    if system != OURS:
        duckdb.execute("SET TimeZone = 'UTC'")
        query = "SELECT {0}::VARCHAR, {1}::TIMESTAMP, listens, listening_ms, {2} FROM read_parquet('{3}')"
        found = {}
        for name, (id_, period, distinct) in REPORTS.items():
            files = f"{out}/reports/{name}/*.parquet" if (out / f"reports/{name}").is_dir() else f"{out}/reports/{name}.parquet"
            rows = duckdb.execute(query.format(id_, period, ", ".join(distinct), files)).fetchall()
            found[name] = {(id_, begin): (listens, ms, tuple(counts)) for id_, begin, listens, ms, *counts in rows}
        return found
    found = {name: {} for name in REPORTS}
    for file in sorted((out / "deltas").glob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            sketches = [datasketches.hll_sketch.deserialize(row[f"sketch.{name}"]) for name in REPORTS[row["report"]][2]]
            counts = tuple(round(sketch.get_composite_estimate() if hasattr(sketch, "get_composite_estimate")
                                 else sketch.get_estimate()) for sketch in sketches)
            begin = datetime.datetime.combine(row["report_date"], datetime.time(row["report_hour"] or 0))
            found[row["report"]][row["id"], begin] = (row["rows"], row["figure.total_listening_time"], counts)
    return found


def is_near(exact, count, slack):
    """Sketches count exactly up to a thousand, but for collisions, and within three per cent beyond."""
    return abs(exact - count) <= (2 if exact <= 1000 else exact * 0.03) if slack else exact == count


def differences(systems, outs, runs):
    """Everything in which a system's results differ from those of the first one."""
    first, *others = sorted(systems, key=lambda system: system == OURS)
    expected, found = (curated(outs[first]), reports(first, outs[first])), []
    for other in others:
        for name in ("rows", "rejected"):
            if runs[other][name] != runs[first][name]:
                found.append(f"{name}: {first} {runs[first][name]}, {other} {runs[other][name]}")
        for ours, theirs in zip(curated(outs[other]), expected[0], strict=True):
            if ours != theirs:
                found.append(f"curated rows: {first} {theirs}, {other} {ours}")
        of_other = reports(other, outs[other])
        for name, items in expected[1].items():
            if items.keys() != of_other[name].keys():
                found.append(f"{name}: {first} has {len(items)} items, {other} {len(of_other[name])}, or others")
                continue
            for key, (listens, ms, counts) in items.items():
                other_listens, other_ms, other_counts = of_other[name][key]
                are_near = all(is_near(*pair, slack=other == OURS) for pair in zip(counts, other_counts, strict=True))
                if (listens, ms) != (other_listens, other_ms) or not are_near:
                    found.append(f"{name} {key}: {first} {items[key]}, {other} {of_other[name][key]}")
    return found


def newest_build():
    """Our own job, as `cargo build --release --bench peers` left it."""
    builds = [path for path in (TARGET / "release/deps").glob("peers-*") if not path.suffix]
    return max(builds, key=lambda path: path.stat().st_mtime)


def compare(rows, arguments):
    """All systems on one size; returns their medians."""
    folder = TARGET / "bench-peers"
    input_ = folder / f"data-{rows}"
    print(f"{rows:,} rows: generating the input, once", flush=True)
    data.generate(rows, input_)
    (input_ / "streams-1.csv").read_bytes()
    commands = {OURS: [str(newest_build())]}
    commands |= {system: [sys.executable, str(HERE / script)] for system, script in JOBS.items()}
    runs = {system: [] for system in arguments.systems}
    outs = {system: folder / f"out-{system}" for system in arguments.systems}
    for turn in range(arguments.rounds):
        for system in arguments.systems:
            run = measure([*commands[system], "--data", str(input_)], outs[system])
            runs[system].append(run)
            print(f"  round {turn + 1}: {system:14} {run['wall_s']:7.2f} s, {run['job_s']:7.2f} s without start-up", flush=True)
        if turn == 0:
            found = differences(arguments.systems, outs, {system: runs[system][0] for system in arguments.systems})
            if found:
                print("\n".join(found[:20]), f"... {len(found)} differences: the times mean nothing", sep="\n")
                sys.exit(1)
            print("  all agree on rows, rejected rows, curated rows and every report item", flush=True)
    median = lambda system, name: statistics.median(run[name] for run in runs[system])
    return [{
        "system": system, "rows": rows, "wall_s_median": median(system, "wall_s"), "cpu_s_median": median(system, "cpu_s"),
        "peak_rss_mib": median(system, "peak_rss") / 2**20, "output_bytes": int(median(system, "output_bytes")),
        "startup_s_median": median(system, "startup_s"), "job_s_median": median(system, "job_s"),
        "version": runs[system][0]["version"], "rounds": arguments.rounds,
    } for system in arguments.systems]


def show(results):
    """Prints the medians as a table."""
    head = ("system", "rows", "wall s", "x", "job s", "x", "start s", "CPU s", "peak MiB", "Parquet MB")
    print(("{:>14} {:>10}" + " {:>9}" * 8).format(*head))
    for result in results:
        ours = next((one for one in results if one["system"] == OURS and one["rows"] == result["rows"]), result)
        print("{:>14} {:>10,} {:9.2f} {:9.1f} {:9.2f} {:9.1f} {:9.2f} {:9.2f} {:9.0f} {:9.1f}".format(
            result["system"], result["rows"], result["wall_s_median"], result["wall_s_median"] / ours["wall_s_median"],
            result["job_s_median"], result["job_s_median"] / ours["job_s_median"], result["startup_s_median"],
            result["cpu_s_median"], result["peak_rss_mib"], result["output_bytes"] / 1e6,
        ))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--systems", nargs="+", default=[OURS, *JOBS], choices=[OURS, *JOBS])
    arguments = parser.parse_args()
    results = [result for rows in arguments.rows for result in compare(rows, arguments)]
    show(results)
    (TARGET / "bench-peers.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
