"""Reads a Delta table below `curated/` of a bucket as others do, for the tests to compare, and writes to it as they do.

    table.py facts BUCKET [ENGINE...]     what each engine makes of the table, as JSON: {engine: {"rows": count,
                                          "by_day": {day: count}, "filtered": {day: count, by a query for that day},
                                          "nulls": {column: count}, "digest": of all rows}}
    table.py count BUCKET CONDITION       the rows that fulfil an SQL condition, by each engine, as JSON; a time is
                                          written TIMESTAMP '2024-06-25 10:00:00' and is one of UTC
    table.py foreign BUCKET checkpoint    delta-rs writes a checkpoint of the current version
    table.py foreign BUCKET commit        delta-rs asks for a checkpoint at every fourth entry, in an entry of its own
    table.py foreign BUCKET optimize      delta-rs replaces the files of the first day with more than one
                                          (each of the three prints the version then)
    table.py log BUCKET                   every version, replayed from the first, as JSON lines: {"version", "files",
                                          "rows": {day: count}, "txn": {application: version}, "wrong": [what
                                          breaks the rules of a log, or what a checkpoint of that version
                                          says otherwise]}

    table.py documents BUCKET             runs the queries of docs/curated.md that need nothing of AWS: what each printed,
                                          as JSON lines

The S3 is that of AWS_ENDPOINT_URL, by plain HTTP. The engines are delta-rs, duckdb, polars and sail. `log`, which is in
the facts too, is none: it is the JSON log, replayed from version 0 without a checkpoint, and its files as pyarrow reads
them. An engine that fails is {"error": message}.

The digest is the SHA-256 of the sorted rows. A row is its columns in the order of the table, with report_date, each as
"=" and the value as text or "~" for null, with a byte 0x1F between and a newline after. Times are microseconds since
1970, dates YYYY-MM-DD, decimals have all places.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
REGION, KEY, SECRET = "us-east-1", "test", "test"
OPTIONS = {
    "AWS_ENDPOINT_URL": ENDPOINT, "AWS_ALLOW_HTTP": "true", "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
}
DAY = "report_date"


class Log:
    """The log replayed in plain Python, and its files read by pyarrow: what the engines are compared with."""

    def __init__(self, bucket):
        self.root = f"{bucket}/curated"
        self.s3 = fs.S3FileSystem(
            access_key=KEY, secret_key=SECRET, region=REGION, endpoint_override=ENDPOINT.split("://")[1], scheme="http",
            # Without these a request that the emulator answers after three seconds fails.
            connect_timeout=10, request_timeout=60)
        self.live, self.txn, self.protocol, self.metadata, self.wrong = {}, {}, None, None, []

    def read(self, path):
        with self.s3.open_input_stream(f"{self.root}/{path}") as file:
            return file.read()

    def versions(self):
        """Replays every version, and yields its number after each."""
        listed = self.s3.get_file_info(fs.FileSelector(f"{self.root}/_delta_log"))
        names = sorted(info.base_name for info in listed if re.fullmatch(r"\d{20}\.json", info.base_name))
        with ThreadPoolExecutor(8) as pool:
            for version, content in enumerate(pool.map(self.read, [f"_delta_log/{name}" for name in names])):
                assert names[version] == f"{version:020}.json", f"version {version} is not in the log"
                self.wrong = []
                self.apply([json.loads(line) for line in content.splitlines() if line])
                yield version

    def apply(self, actions):
        # Within a version a file is removed or added, never both.
        paths = Counter(action[kind]["path"] for action in actions for kind in ("add", "remove") if kind in action)
        self.wrong += [f"{path} is there twice" for path, times in paths.items() if times > 1]
        for action in actions:
            (kind, body), = action.items()
            if kind == "add":
                if body["path"] in self.live:
                    self.wrong.append(f"{body['path']} was live already")
                self.live[body["path"]] = body
            elif kind == "remove":
                if self.live.pop(body["path"], None) is None:
                    self.wrong.append(f"{body['path']} was not live")
            elif kind == "txn":
                if body["version"] < self.txn.get(body["appId"], 0):
                    self.wrong.append(f"txn {body['appId']} goes back to {body['version']}")
                self.txn[body["appId"]] = body["version"]
            elif kind == "metaData":
                self.metadata = body
            elif kind == "protocol":
                self.protocol = body

    def checkpoints(self):
        """The versions with a checkpoint in one file."""
        listed = self.s3.get_file_info(fs.FileSelector(f"{self.root}/_delta_log"))
        return {int(info.base_name[:20]) for info in listed if info.base_name.endswith(".checkpoint.parquet")}

    def compare_checkpoint(self, version):
        """Notes what a checkpoint of the present version says otherwise than the replay."""
        content = self.read(f"_delta_log/{version:020}.checkpoint.parquet")
        rows = pq.ParquetFile(pa.BufferReader(content)).read().to_pylist()
        state = {kind: [plain(row[kind]) for row in rows if row.get(kind)] for kind in KINDS}
        pairs = {
            "protocol": (state["protocol"], [self.protocol]),
            "metaData": (state["metaData"], [self.metadata]),
        }
        found, expected = keyed(state["add"]), keyed(self.live.values())
        pairs |= {f"add {path}": (found.get(path), expected.get(path)) for path in {**found, **expected}}
        for what, (found, expected) in pairs.items():
            if without_nulls(found) != without_nulls(expected):
                self.wrong.append(f"checkpoint {version}: {what}: {found} is not {expected}")
        if len(state["add"]) != len(self.live):
            self.wrong.append(f"checkpoint {version}: {len(state['add'])} adds for {len(self.live)} files")
        found = {txn["appId"]: txn["version"] for txn in state["txn"]}
        # Those of single batches may be left out once the watermark is above them.
        through = self.txn.get("music-streams", 0)
        wanted = [name for name, number in self.txn.items() if name in found or "/" not in name or number > through]
        expected = {name: self.txn[name] for name in wanted}
        if found != expected:
            self.wrong.append(f"checkpoint {version}: txn {found} is not {expected}")
        removed = {remove["path"] for remove in state["remove"]}
        if removed & set(self.live):
            self.wrong.append(f"checkpoint {version}: removes live files {removed & set(self.live)}")

    def rows(self):
        """The live rows of each day, as the log counts them."""
        rows = Counter()
        for add in self.live.values():
            rows[add["partitionValues"][DAY]] += json.loads(add["stats"])["numRecords"]
        return dict(sorted(rows.items()))

    def table(self):
        """The live rows."""
        for _ in self.versions():
            pass
        schema = pa.schema([arrow_field(field) for field in json.loads(self.metadata["schemaString"])["fields"]])
        with ThreadPoolExecutor(8) as pool:
            files = pool.map(lambda add: self.file(add, schema), self.live.values())
            return pa.concat_tables([schema.empty_table(), *files])

    def file(self, add, schema):
        file = pq.ParquetFile(pa.BufferReader(self.read(add["path"])))
        assert file.metadata.num_rows == json.loads(add["stats"])["numRecords"], f"numRecords of {add['path']}"
        read = file.read()
        day = pa.scalar(add["partitionValues"][DAY]).cast(pa.date32())
        column = {
            field.name: pa.repeat(day, len(read)) if field.name == DAY
            else read[field.name].cast(field.type) if field.name in read.column_names
            else pa.nulls(len(read), field.type)
            for field in schema
        }
        return pa.table(column, schema)


KINDS = ("protocol", "metaData", "txn", "add", "remove")
MAPS = ("partitionValues", "tags", "options", "configuration")


def plain(value, name=None):
    """An action as pyarrow reads it from a checkpoint, as it is in JSON."""
    if name in MAPS:
        return value if value is None else dict(value)
    if isinstance(value, dict):
        return {key: plain(inner, key) for key, inner in value.items()}
    return value


def keyed(adds):
    """Adds by path; the statistics as values, and without what says that a file was new."""
    left_out = ("dataChange", "stats_parsed", "partitionValues_parsed")
    return {
        add["path"]: {
            **{key: value for key, value in add.items() if key not in left_out},
            "stats": json.loads(add.get("stats") or "null"),
        }
        for add in adds
    }


def without_nulls(value):
    """Without the empty and the missing, between which a checkpoint cannot always tell."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner not in (None, {})}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def arrow_field(field):
    name, kind = field["name"], field["type"]
    if kind.startswith("decimal"):
        precision, scale = kind[len("decimal("):-1].split(",")
        return pa.field(name, pa.decimal128(int(precision), int(scale)))
    types = {
        "string": pa.string(), "integer": pa.int32(), "long": pa.int64(), "date": pa.date32(), "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us", "UTC"), "double": pa.float64(),
    }
    return pa.field(name, types[kind])


class Engine:
    """What all engines answer by SQL; each brings `query`, of several queries at once."""

    name = "t"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def facts(self, days):
        rows, count, *filtered = self.query([
            f"SELECT * FROM {self.name}",
            f"SELECT count(*) AS n FROM {self.name}",
            *(self.count(f"{DAY} = DATE '{day}'") for day in days),
        ])
        by_day = Counter(rows[DAY].cast(pa.string()).to_pylist())
        return {
            "rows": number(count),
            "by_day": {str(day): by_day[day] for day in sorted(by_day, key=str)},
            "filtered": {day: number(count) for day, count in zip(days, filtered)},
            **of_rows(rows),
        }

    def count(self, condition):
        return f"SELECT count(*) AS n FROM {self.name} WHERE {condition}"


class DeltaRs(Engine):
    def __init__(self, bucket):
        from deltalake import QueryBuilder

        self.engine = QueryBuilder().register("t", delta_rs(bucket))

    def query(self, queries):
        return [pa.table(self.engine.execute(query).read_all()) for query in queries]


class Polars(Engine):
    def __init__(self, bucket):
        import polars

        self.context = polars.SQLContext(t=polars.scan_delta(f"s3://{bucket}/curated", storage_options=OPTIONS))

    def query(self, queries):
        # Polars alone does not compare times with and without a zone.
        queries = [re.sub(r"TIMESTAMP '([^']*)'", r"TIMESTAMP WITH TIME ZONE '\1+00:00'", query) for query in queries]
        return [self.context.execute(query).collect().to_arrow() for query in queries]


class DuckDb(Engine):
    """Its command line: the extension is of another version than the module that the other tests use."""

    def __init__(self, bucket):
        self.program = Path(find_spec("duckdb_cli").origin).with_name("duckdb")
        packages = [Path(find_spec(f"duckdb_extension_{name}").origin).parent for name in ("httpfs", "delta")]
        extensions = [next(package.glob("extensions/*/*.duckdb_extension")) for package in packages]
        self.start = "\n".join([
            *(f"LOAD '{extension}';" for extension in extensions), "SET TimeZone = 'UTC';",
            f"CREATE SECRET (TYPE s3, KEY_ID '{KEY}', SECRET '{SECRET}', REGION '{REGION}', URL_STYLE 'path',",
            f"USE_SSL false, ENDPOINT '{ENDPOINT.split('://')[1]}');",
            f"ATTACH 's3://{bucket}/curated' AS t (TYPE delta, PIN_SNAPSHOT);",
        ])

    def query(self, queries):
        with tempfile.TemporaryDirectory() as place:
            files = [f"{place}/{index}.parquet" for index in range(len(queries))]
            copies = [f"COPY ({query}) TO '{file}' (FORMAT parquet);" for query, file in zip(queries, files)]
            script = "\n".join([self.start, *copies])
            done = subprocess.run([self.program, "-bail", "-no-init"], input=script, capture_output=True, text=True)
            assert done.returncode == 0, f"DuckDB: {done.stderr}"
            return [pq.ParquetFile(file).read() for file in files]


class Sail(Engine):
    """Spark SQL by a server within this process: the one engine here whose reader of the log is not delta-kernel."""

    def __init__(self, bucket):
        os.environ |= {**OPTIONS, "RUST_LOG": "error"}
        from pysail.spark import SparkConnectServer
        from pyspark.sql import SparkSession

        self.server = SparkConnectServer("127.0.0.1", 0)
        self.server.start(background=True)
        _, port = self.server.listening_address
        session = SparkSession.builder.remote(f"sc://127.0.0.1:{port}")
        self.spark = session.config("spark.sql.session.timeZone", "UTC").getOrCreate()
        self.place = f"s3://{bucket}/curated"

    def query(self, queries):
        self.spark.read.format("delta").load(self.place).createOrReplaceTempView("t")
        return [self.spark.sql(query).toArrow() for query in queries]

    def __exit__(self, *_):
        # The client first: otherwise it waits at the end of the process for a server that is gone.
        self.spark.stop()
        self.server.stop()


ENGINES = {"delta-rs": DeltaRs, "duckdb": DuckDb, "polars": Polars, "sail": Sail}


def number(table):
    return table.column(0)[0].as_py()


def of_rows(table):
    return {"nulls": {name: table[name].null_count for name in table.column_names}, "digest": digest(table)}


def digest(table):
    columns = [text(table[name].combine_chunks()) for name in table.column_names]
    lines = pc.binary_join_element_wise(*columns, "\x1f").to_pylist()
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()


def text(column):
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    column = column.cast(pa.string())
    return pc.fill_null(pc.binary_join_element_wise(pa.scalar("="), column, ""), "~")


def delta_rs(bucket):
    from deltalake import DeltaTable

    return DeltaTable(f"s3://{bucket}/curated", storage_options=OPTIONS)


def facts(bucket, *names):
    expected = of_log(bucket)
    read = by_engine(bucket, names, lambda engine: engine.facts(list(expected["by_day"])))
    print(json.dumps({"log": expected, **read}))


def by_engine(bucket, names, ask):
    """What each engine answers, or how it fails."""
    def answer(name):
        started = time.monotonic()
        try:
            with ENGINES[name](bucket) as engine:
                return ask(engine)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        finally:
            print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr)

    names = names or list(ENGINES)
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(answer, names)))


def of_log(bucket):
    log = Log(bucket)
    table = log.table()
    return {"rows": len(table), "by_day": log.rows(), "filtered": log.rows(), **of_rows(table)}


def count(bucket, condition):
    print(json.dumps(by_engine(bucket, (), lambda engine: number(engine.query([engine.count(condition)])[0]))))


def foreign(bucket, what):
    table = delta_rs(bucket)
    if what == "checkpoint":
        table.create_checkpoint()
    elif what == "commit":
        before = table.protocol()
        table.alter.set_table_properties({"delta.checkpointInterval": "4"})
        assert table.protocol() == before, f"{before} became {table.protocol()}"
    elif what == "optimize":
        files = Counter(add["partition"][DAY] for add in pa.table(table.get_add_actions()).to_pylist())
        day = min(day for day, count in files.items() if count > 1)
        print(table.optimize.compact(partition_filters=[(DAY, "=", str(day))]), file=sys.stderr)
    print(delta_rs(bucket).version())


def log(bucket):
    replayed = Log(bucket)
    checkpoints = replayed.checkpoints()
    for version in replayed.versions():
        if version in checkpoints:
            replayed.compare_checkpoint(version)
        state = {"version": version, "files": len(replayed.live), "rows": replayed.rows(), "txn": replayed.txn}
        print(json.dumps({**state, "wrong": replayed.wrong}))


def documents(bucket):
    """The code blocks of the guide, as they are there; only the bucket, keys and endpoint are those of the test."""
    guide = (Path(__file__).parent.parent / "docs/curated.md").read_text()
    guide = re.sub("s3a?://BUCKET", f"s3://{bucket}", guide)
    os.environ |= {**OPTIONS, "AWS_DEFAULT_REGION": REGION}
    for kind, block in re.findall(r"^```(sql|python)\n(.*?)^```", guide, re.M | re.S):
        # Those that need AWS, or a version that there is not.
        if "s3://" not in block or "deltaLake(" in block or "4711" in block:
            continue
        answer = sql_block if kind == "sql" else python_block
        print(json.dumps({"block": block, "rows": answer(bucket, block)}, default=str))


def sql_block(bucket, block):
    duckdb = DuckDb(bucket)
    query = re.sub(r"^(INSTALL|CREATE SECRET).*\n", "", block, flags=re.M).strip().rstrip(";")
    return [list(row.values()) for row in duckdb.query([query])[0].to_pylist()]


def python_block(bucket, block):
    import polars

    shown = []
    if block.startswith("spark."):
        with Sail(bucket) as sail:
            return [list(row) for row in eval(block, {"spark": sail.spark}).collect()]
    exec(block, {"print": lambda frame: shown.extend(polars.DataFrame(frame).rows())})
    return shown


if __name__ == "__main__":
    {"facts": facts, "count": count, "foreign": foreign, "log": log, "documents": documents}[sys.argv[1]](*sys.argv[2:])
