"""`make bench-events`: events of three shapes, read and grouped by `definition try`, DuckDB and Polars, in turn.

    events.py [--rows 1000000] [--rounds 5] [--shapes plays requests listens] [--binary PATH]

The definitions are in `events/`: JSON lines, a log of 33 columns, and lines whose ids are texts. Every run is a process
of its own that reads one file and makes the same reports. The peers take every row for good, and neither judge nor
make curated columns; DuckDB's and Polars' distinct counts are exact. Before a time is believed, the number of items and
the sum of every figure that adds up are compared with DuckDB's. Prints medians of wall time with start-up, and the
ratios.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "target"
SEED, CHUNK_ROWS, MIDNIGHT, DAY = 7, 250_000, 1_719_273_600, 86_400
LETTERS = np.array(list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))
FILES = {"plays": "plays.jsonl", "requests": "requests.log", "listens": "listens.csv"}
COLUMNS = (
    "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent) "
    "cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes time-taken "
    "x-forwarded-for ssl-protocol ssl-cipher x-edge-response-result-type cs-protocol-version fle-status "
    "fle-encrypted-fields c-port time-to-first-byte x-edge-detailed-result-type sc-content-type sc-content-len "
    "sc-range-start sc-range-end"
).split()


class Maker:
    """Seeded columns of texts."""

    def __init__(self):
        self.random = np.random.default_rng(SEED)

    def ids(self, count, length):
        return pa.array(["".join(row) for row in LETTERS[self.random.integers(0, 62, (count, length))]])

    def zipf_numbers(self, count, rows):
        """Numbers below a count, the first the most often."""
        shares = np.cumsum(1 / np.arange(1, count + 1))
        return np.searchsorted(shares / shares[-1], self.random.random(rows))

    def zipf(self, texts, rows):
        """Texts of a list, the first the most often."""
        return texts.take(pa.array(self.zipf_numbers(len(texts), rows)))

    def some(self, texts, rows):
        return pa.array(texts).take(pa.array(self.random.integers(0, len(texts), rows)))

    def numbers(self, least, most, rows):
        return pc.cast(pa.array(self.random.integers(least, most, rows)), pa.string())

    def times(self, form, rows):
        seconds = MIDNIGHT + np.sort(self.random.integers(0, DAY, rows))
        return pc.strftime(pa.array(seconds, pa.timestamp("s")), form)


def joined(*parts):
    """Lines of texts and columns, one after the other."""
    return pc.binary_join_element_wise(*[pa.scalar(part) if isinstance(part, str) else part for part in parts], "")


def chunks(shape, rows):
    """The lines of a shape, some at a time."""
    make = Maker()
    tracks, artists = make.ids(90_000, 22), [f"Artist number {number}" for number in range(31_000)]
    users = [f"user_{number:06}" for number in range(50_000)]
    pages = pa.array([f"/articles/{number % 200}/a-page-with-a-name-{number}.html" for number in range(20_000)])
    clients = [f"198.{number % 256}.{number // 256 % 256}.{number % 251}" for number in range(60_000)]
    edges = [f"{name}{number}-C{number % 4}" for name in ("FRA", "IAD", "NRT", "GRU", "SYD") for number in range(50, 70)]
    agent = "Mozilla/5.0%20(Windows%20NT%2010.0;%20Win64;%20x64)%20AppleWebKit/537.36"
    for start in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - start)
        if shape == "listens":
            yield joined(make.some(users, count), ",", make.zipf(tracks, count), ",",
                         make.times("%Y-%m-%d %H:%M:%S", count))
        elif shape == "requests":
            milliseconds = make.random.integers(0, 2000, count)
            seconds = pa.array([f"{value / 1000:.3f}" for value in milliseconds])
            result = make.some(["Hit"] * 7 + ["RefreshHit", "Miss", "Error"], count)
            yield joined(
                make.times("%Y-%m-%d\t%H:%M:%S", count), "\t", make.some(edges, count), "\t",
                make.numbers(300, 90_000, count), "\t", make.some(clients, count), "\tGET\td111abcdef8.cloudfront.net\t",
                make.zipf(pages, count), "\t", make.some(["200"] * 8 + ["304", "404", "502"], count), f"\t-\t{agent}\t-\t-\t",
                result, "\t", make.some(make.ids(5000, 52).to_pylist(), count), "\twww.example.com\thttps\t",
                make.numbers(20, 400, count), "\t", seconds, "\t-\tTLSv1.3\tTLS_AES_128_GCM_SHA256\t", result,
                "\tHTTP/2.0\t-\t-\t", make.numbers(1024, 65_536, count), "\t0.012\t", result,
                "\ttext/html\t4096\t-\t-")
        else:
            number = make.zipf_numbers(len(tracks), count)
            skipped = make.some(["false", "false", "true"], count)
            # A track has one artist and one name.
            name = pa.array(artists).take(pa.array(number % len(artists)))
            podcast = make.random.random(count) < 0.02
            track = pc.if_else(pa.array(podcast), pa.scalar("null"), joined('"spotify:track:', tracks.take(pa.array(number)), '"'))
            yield joined(
                '{"ts":"', make.times("%Y-%m-%dT%H:%M:%SZ", count), '","username":"', make.some(users, count),
                '","platform":"iOS 17.5.1 (iPhone14,5)","ms_played":', make.numbers(0, 400_000, count),
                ',"conn_country":"', make.some(["DE", "PT", "US", "BR"], count),
                '","ip_addr_decrypted":"203.0.113.7","user_agent_decrypted":"unknown","master_metadata_track_name":"A song of ',
                name, '","master_metadata_album_artist_name":"', name, '","master_metadata_album_album_name":"An album of ',
                name, '","spotify_track_uri":', track,
                ',"episode_name":null,"episode_show_name":null,"spotify_episode_uri":null,"audiobook_title":null,"reason_start":"trackdone",'
                '"reason_end":"trackdone","shuffle":false,"skipped":', skipped,
                ',"offline":false,"offline_timestamp":1719273600,"incognito_mode":false}')


def generate(shape, rows, folder):
    """Writes the file, unless it is there."""
    path = folder / f"{rows}-{FILES[shape]}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            if shape == "listens":
                file.write(b"user_id,track_id,listen_time\n")
            if shape == "requests":
                file.write(f"#Version: 1.0\n#Fields: {' '.join(COLUMNS)}\n".encode())
            for lines in chunks(shape, rows):
                file.write("\n".join(lines.to_pylist()).encode() + b"\n")
        partial.rename(path)
    path.read_bytes()
    return path


# Of each shape: how DuckDB reads it, and its reports, each by its figures that add up.
DUCKDB_ROWS = {
    "plays": """SELECT ts::TIMESTAMP AS time, username, spotify_track_uri AS track, master_metadata_track_name AS name,
        coalesce(master_metadata_album_artist_name, 'unknown') AS artist, ms_played, skipped
        FROM read_json('{path}', format = 'newline_delimited', columns = {{ts: 'VARCHAR', username: 'VARCHAR',
        spotify_track_uri: 'VARCHAR', master_metadata_track_name: 'VARCHAR', master_metadata_album_artist_name: 'VARCHAR',
        ms_played: 'BIGINT', skipped: 'BOOLEAN'}}) WHERE spotify_track_uri IS NOT NULL""",
    "requests": """SELECT "date" + "time" AS time, "x-edge-location" AS edge, "c-ip" AS client, "cs-uri-stem" AS path,
        "sc-status" AS status, "x-edge-result-type" AS result, "sc-bytes" AS bytes, "time-taken" AS seconds
        FROM read_csv('{path}', delim = '\t', quote = '', escape = '', skip = 2, header = false, nullstr = '-',
        auto_detect = false, columns = {columns})""",
    "listens": """SELECT user_id, track_id, listen_time AS time FROM read_csv('{path}', header = true, delim = ',',
        auto_detect = false, columns = {{user_id: 'VARCHAR', track_id: 'VARCHAR', listen_time: 'TIMESTAMP'}})""",
}
DUCKDB_REPORTS = {
    "plays": {
        "tracks": """SELECT track, time::DATE AS period, count(*) FILTER (ms_played >= 30000) AS plays,
            count(*) FILTER (skipped) AS skips, sum(ms_played) / 1000 AS seconds_played,
            count(DISTINCT username) AS listeners, any_value(name) AS name FROM events GROUP BY ALL""",
        "artists": """SELECT artist, time::DATE AS period, count(*) FILTER (ms_played >= 30000) AS plays,
            sum(ms_played) / 1000 AS seconds_played FROM events GROUP BY ALL""",
    },
    "requests": {
        "pages": """SELECT path, time::DATE AS period, count(*) AS requests, count(*) FILTER (status >= 500) AS errors,
            sum(bytes) AS bytes, count(DISTINCT client) AS clients, max(seconds) AS slowest FROM events GROUP BY ALL""",
        "edges": """SELECT edge, date_trunc('hour', time) AS period, count(*) AS requests,
            count(*) FILTER (result IN ('Hit', 'RefreshHit')) AS hits, sum(bytes) AS bytes FROM events GROUP BY ALL""",
    },
    "listens": {
        "tracks": """SELECT track_id, time::DATE AS period, count(*) AS listens, count(DISTINCT user_id) AS listeners
            FROM events GROUP BY ALL""",
        "listeners": """SELECT user_id, time::DATE AS period, count(*) AS listens, count(DISTINCT track_id) AS tracks
            FROM events GROUP BY ALL""",
    },
}
ADDITIVE = ("plays", "skips", "seconds_played", "requests", "errors", "hits", "bytes", "listens")
DISTINCT = ("listeners", "clients", "tracks")


def with_duckdb(shape, path):
    """Makes the reports: the file is read once into a table."""
    types = {"date": "DATE", "time": "TIME", "sc-bytes": "BIGINT", "sc-status": "INTEGER", "time-taken": "DECIMAL(12,3)"}
    columns = {column: types.get(column, "VARCHAR") for column in COLUMNS}
    session = duckdb.connect()
    session.execute("SET preserve_insertion_order = false")
    session.execute(f"CREATE TABLE events AS {DUCKDB_ROWS[shape].format(path=path, columns=columns)}")
    return {name: session.sql(report).to_arrow_table() for name, report in DUCKDB_REPORTS[shape].items()}


def with_polars(shape, path):
    """Makes the reports: the file is read once, and they are made together."""
    if shape == "plays":
        schema = {"ts": pl.String, "username": pl.String, "spotify_track_uri": pl.String,
                  "master_metadata_track_name": pl.String, "master_metadata_album_artist_name": pl.String,
                  "ms_played": pl.Int64, "skipped": pl.Boolean}
        events = pl.scan_ndjson(path, schema=schema).filter(pl.col("spotify_track_uri").is_not_null()).with_columns(
            period=pl.col("ts").str.to_datetime("%Y-%m-%dT%H:%M:%SZ").dt.date())
        plays, seconds = (pl.col("ms_played") >= 30_000).sum().alias("plays"), (pl.col("ms_played").sum() / 1000)
        reports = {
            "tracks": events.group_by("spotify_track_uri", "period").agg(
                plays, pl.col("skipped").sum(), seconds, pl.col("username").n_unique(),
                pl.col("master_metadata_track_name").last()),
            "artists": events.group_by("master_metadata_album_artist_name", "period").agg(plays, seconds),
        }
    elif shape == "requests":
        types = {"sc-bytes": pl.Int64, "sc-status": pl.Int32, "time-taken": pl.Float64}
        events = pl.scan_csv(
            path, separator="\t", has_header=False, skip_rows=2, quote_char=None, null_values="-",
            schema={column: types.get(column, pl.String) for column in COLUMNS},
        ).with_columns(day=pl.col("date").str.to_date(), hour=pl.col("date") + "T" + pl.col("time").str.slice(0, 2))
        requests, bytes_ = pl.len().alias("requests"), pl.col("sc-bytes").sum()
        reports = {
            "pages": events.group_by("cs-uri-stem", "day").agg(
                requests, (pl.col("sc-status") >= 500).sum(), bytes_, pl.col("c-ip").n_unique(), pl.col("time-taken").max()),
            "edges": events.group_by("x-edge-location", "hour").agg(
                requests, pl.col("x-edge-result-type").is_in(["Hit", "RefreshHit"]).sum().alias("hits"), bytes_),
        }
    else:
        events = pl.scan_csv(path, schema={name: pl.String for name in ("user_id", "track_id", "listen_time")}).with_columns(
            period=pl.col("listen_time").str.to_datetime("%Y-%m-%d %H:%M:%S").dt.date())
        reports = {
            "tracks": events.group_by("track_id", "period").agg(pl.len(), pl.col("user_id").n_unique()),
            "listeners": events.group_by("user_id", "period").agg(pl.len(), pl.col("track_id").n_unique()),
        }
    return dict(zip(reports, pl.collect_all(reports.values(), engine="streaming")))


def tried(binary, shape, path, rows):
    """What `definition try` says, with so many items of each report."""
    command = [str(binary), "definition", "try", str(HERE / f"events/{shape}.toml"), str(path), "--format", "json",
               "--rows", str(rows)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def differences(binary, shape, path):
    """Everything in which `definition try` and DuckDB differ."""
    found, answer = [], tried(binary, shape, path, 1_000_000)
    for name, table in with_duckdb(shape, path).items():
        report = next(report for report in answer["reports"] if report["report"] == name)
        if report["items"] != table.num_rows or len(report["first"]) != table.num_rows:
            found.append(f"{name}: {report['items']:,} items, {table.num_rows:,} of DuckDB")
        for figure in set(table.column_names) & {*ADDITIVE, *DISTINCT}:
            theirs = float(pc.sum(pc.cast(table[figure], pa.float64())).as_py())
            ours = sum(float(item[figure]) for item in report["first"])
            # Sketches count exactly up to some 1,500, and within a few per cent beyond.
            if abs(ours - theirs) > (0.02 * theirs if figure in DISTINCT else 0.001):
                found.append(f"{name}, the sum of {figure}: {ours}, {theirs} of DuckDB")
    return found


def timed(command):
    began = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.time() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--binary", type=pathlib.Path, default=TARGET / "release/music-streams")
    parser.add_argument("--only", nargs=3, metavar=("SYSTEM", "SHAPE", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        system, shape, path = arguments.only
        {"duckdb": with_duckdb, "polars": with_polars}[system](shape, path)
        return
    print(f"{'events':>10} {'rows':>10} {'MB':>6} {'music-streams':>20} {'DuckDB':>16} {'Polars':>16}")
    for shape in arguments.shapes:
        path = generate(shape, arguments.rows, TARGET / "bench-events")
        if found := differences(arguments.binary, shape, path):
            sys.exit("\n".join([f"{shape}: the times mean nothing", *found]))
        definition = str(HERE / f"events/{shape}.toml")
        commands = {"ours": [str(arguments.binary), "definition", "try", definition, str(path), "--format", "json"]}
        for system in ("duckdb", "polars"):
            commands[system] = [sys.executable, __file__, "--only", system, shape, str(path)]
        times = {system: [] for system in commands}
        for _ in range(arguments.rounds):
            for system, command in commands.items():
                times[system].append(timed(command))
        ours, duck, polar = (statistics.median(of_system) for of_system in times.values())
        print(f"{shape:>10} {arguments.rows:>10,} {path.stat().st_size / 1e6:6.0f} {ours:6.2f} s "
              f"{arguments.rows / ours:9,.0f}/s {duck:6.2f} s {duck / ours:4.1f} x {polar:7.2f} s {polar / ours:4.1f} x",
              flush=True)


if __name__ == "__main__":
    main()
