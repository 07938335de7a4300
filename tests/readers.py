"""Reads Parquet files as others do, for the tests to compare.

    readers.py rows duckdb|pyarrow|polars FOLDER      every row as one line of text, sorted
    readers.py curated FILE                           every column of every row in order, as JSON, if all readers agree
    readers.py ids FILE                               the id of each column, as JSON
    readers.py facts FILE                             what each reader makes of types, nulls and statistics, as JSON
    readers.py sketch FILE COUNT                      the count that DataSketches' own library reads from a sketch of the
                                                      numbers below COUNT, and that of its union with a sketch of its own
"""

import json
import sys
from pathlib import Path

import duckdb
import polars
import pyarrow.parquet

COLUMNS = ["user_id", "track_id", "listen_time", "track_name", "artists", "track_genre", "duration_ms"]


def read(reader, folder):
    files = sorted(str(path) for path in Path(folder).glob("*.parquet"))
    if reader == "duckdb":
        duckdb.sql("SET TimeZone = 'UTC'")
        return duckdb.read_parquet(files).project(", ".join(COLUMNS)).fetchall()
    if reader == "pyarrow":
        tables = [pyarrow.parquet.read_table(file, columns=COLUMNS).to_pylist() for file in files]
        return [tuple(row[column] for column in COLUMNS) for rows in tables for row in rows]
    return polars.read_parquet(files, columns=COLUMNS).select(COLUMNS).rows()


def rows(reader, folder):
    lines = []
    for user, track, time, *others in read(reader, folder):
        shown = ("" if value is None else str(value) for value in others)
        lines.append("|".join([str(user), track, f"{time:%Y-%m-%d %H:%M:%S}", *shown]))
    print("\n".join(sorted(lines)))


def curated(file):
    duckdb.sql("SET TimeZone = 'UTC'")
    of_readers = [
        duckdb.read_parquet(file).fetchall(),
        [tuple(row.values()) for row in pyarrow.parquet.ParquetFile(file).read().to_pylist()],
        polars.read_parquet(file).rows(),
    ]
    texts = [[[user, track, f"{time:%Y-%m-%d %H:%M:%S.%f}".rstrip("0").rstrip("."), *rest]
              for user, track, time, *rest in rows] for rows in of_readers]
    assert texts[0] == texts[1] == texts[2], "the readers disagree"
    print(json.dumps(texts[0]))


def ids(file):
    schema = pyarrow.parquet.read_schema(file)
    print(json.dumps({field.name: int(field.metadata[b"PARQUET:field_id"]) for field in schema}))


def facts(file):
    metadata = pyarrow.parquet.ParquetFile(file).metadata
    columns = {}
    for index in range(metadata.num_columns):
        chunk = metadata.row_group(0).column(index)
        statistics = chunk.statistics
        columns[chunk.path_in_schema] = {
            "nulls": statistics.null_count,
            "has_min_max": statistics.has_min_max,
            "min": str(statistics.min),
            "max": str(statistics.max),
            "type": str(metadata.schema.to_arrow_schema().field(index).type),
            "compression": chunk.compression,
            "encodings": list(chunk.encodings),
            "bytes": chunk.total_compressed_size,
        }
    duckdb.sql("SET TimeZone = 'UTC'")
    table = duckdb.read_parquet(file)
    is_null = {name: len(table.filter(f'"{name}" IS NULL').fetchall()) for name in table.columns}
    print(json.dumps({
        "rows": metadata.num_rows,
        "row_groups": metadata.num_row_groups,
        "columns": columns,
        "duckdb_is_null": is_null,
        "duckdb_types": dict(zip(table.columns, map(str, table.types))),
        "polars_types": {name: str(dtype) for name, dtype in polars.read_parquet_schema(file).items()},
        "polars_nulls": polars.read_parquet(file).null_count().to_dicts()[0],
    }))


def sketch(file, members):
    import datasketches

    ours = datasketches.hll_sketch.deserialize(Path(file).read_bytes())
    # The same members, hashed by that library: the union has no more of them if both hash alike.
    theirs = datasketches.hll_sketch(14)
    for member in range(int(members)):
        theirs.update(member)
    union = datasketches.hll_union(14)
    union.update(ours)
    union.update(theirs)
    print(ours.get_estimate(), union.get_estimate())


{"rows": rows, "curated": curated, "ids": ids, "facts": facts, "sketch": sketch}[sys.argv[1]](*sys.argv[2:])
