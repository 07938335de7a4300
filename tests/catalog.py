"""The table of curated files in Glue's catalog, on a ministack of its own: its columns, a query by Athena, and rights.

    catalog.py

Deploys the template with a catalog, puts files as batches write them, asks ministack's Athena, which is DuckDB, and
deploys the template without the catalog again. ministack knows neither Delta nor partition projection: of the table
with a log it has the entry alone, and that of files is read as a folder.
"""

import fnmatch
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import boto3
import pyarrow
import pyarrow.parquet

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "localstack"))

from stack import free_port, start_ministack, stop  # noqa: E402

STACK, BUCKET, TABLE, DATABASE, FIRST = "catalog-test", "catalog-test-bucket", "listens", "music_test", "2024-06-24"
DAYS = [date(2024, 6, 24), date(2024, 6, 25), date(2024, 6, 26)]
# docs/curated.md has the same.
SCHEMA = pyarrow.schema([
    pyarrow.field("user_id", pyarrow.int64(), nullable=False),
    pyarrow.field("track_id", pyarrow.string(), nullable=False),
    pyarrow.field("listen_time", pyarrow.timestamp("us", tz="UTC"), nullable=False),
    pyarrow.field("track_name", pyarrow.string()),
    pyarrow.field("artists", pyarrow.string()),
    pyarrow.field("track_genre", pyarrow.string()),
    pyarrow.field("duration_ms", pyarrow.int32()),
    pyarrow.field("user_country", pyarrow.string()),
    pyarrow.field("source_key", pyarrow.string(), nullable=False),
])
GLUE_TYPES = {"int64": "bigint", "int32": "int", "string": "string", "timestamp[us, tz=UTC]": "timestamp"}


def rows_of(day, batch):
    """Rows whose numbers differ by day and batch."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=timezone.utc)
    for number in range(10 * day.day + batch):
        known = number % 3 > 0
        yield {
            "user_id": 1 + number % 7,
            "track_id": f"track-{number % 5}",
            "listen_time": midnight + timedelta(seconds=61 * number + batch),
            "track_name": "a name" if known else None,
            "artists": "one;another" if known else None,
            "track_genre": f"genre-{number % 2}" if known else None,
            "duration_ms": 1000 + number if known else None,
            "user_country": "NL",
            "source_key": f"incoming/{batch}.csv",
        }


def put_files(s3):
    """Puts two files for each day, and returns the rows of each day."""
    rows = {day: [] for day in DAYS}
    for day in DAYS:
        for batch in (1, 2):
            of_file = list(rows_of(day, batch))
            rows[day] += of_file
            body = io.BytesIO()
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(of_file, SCHEMA), body, compression="zstd")
            key = f"curated/report_date={day}/batch-{batch:012}.parquet"
            s3.put_object(Bucket=BUCKET, Key=key, Body=body.getvalue())
    s3.put_object(Bucket=BUCKET, Key="curated/_delta_log/00000000000000000000.json", Body=b"{}\n")
    return rows


def check_entries(glue, s3):
    """The entries of both tables: their columns, and the places that they name."""
    expected = [{"Name": field.name, "Type": GLUE_TYPES[str(field.type)]} for field in SCHEMA]
    tables = {table["Name"]: table for table in glue.get_tables(DatabaseName=DATABASE)["TableList"]}
    assert set(tables) == {TABLE, f"{TABLE}_files"}, tables
    for table in tables.values():
        storage = table["StorageDescriptor"]
        assert storage["Columns"] == expected, storage
        assert storage["Location"] == f"s3://{BUCKET}/curated/", storage
        assert table["PartitionKeys"] == [{"Name": "report_date", "Type": "date"}], table
        assert table["TableType"] == "EXTERNAL_TABLE", table
    delta, files = tables[TABLE], tables[f"{TABLE}_files"]
    assert delta["Parameters"]["table_type"] == "DELTA", delta
    assert delta["StorageDescriptor"]["SerdeInfo"]["Parameters"]["path"] == f"s3://{BUCKET}/curated/", delta
    parameters = files["Parameters"]
    first, last = parameters["projection.report_date.range"].split(",")
    assert (parameters["projection.enabled"], first, last) == ("true", FIRST, "NOW+2DAYS"), parameters
    # A day's folder is where the template of places says.
    for day in DAYS:
        place = parameters["storage.location.template"].replace("${report_date}", str(day))
        prefix = place.removeprefix(f"s3://{BUCKET}/")
        assert s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["KeyCount"] == 2, place


def ask(athena, query):
    """Returns the rows that Athena answers, as text."""
    started = athena.start_query_execution(
        QueryString=query,
        WorkGroup=DATABASE,
        QueryExecutionContext={"Database": DATABASE},
        # ministack has no results that Athena keeps itself, and asks for a place.
        ResultConfiguration={"OutputLocation": "s3://results/"},
    )
    name = {"QueryExecutionId": started["QueryExecutionId"]}
    deadline = time.monotonic() + 30
    while (status := athena.get_query_execution(**name)["QueryExecution"]["Status"])["State"] in ("QUEUED", "RUNNING"):
        assert time.monotonic() < deadline, f"no answer to {query}"
        time.sleep(0.05)
    assert status["State"] == "SUCCEEDED", f"{query}: {status}"
    _, *rows = athena.get_query_results(**name)["ResultSet"]["Rows"]
    return [[cell.get("VarCharValue", "") for cell in row["Data"]] for row in rows]


def check_answers(athena, rows):
    figures = "report_date, count(*), count(duration_ms), sum(duration_ms), min(listen_time), count(distinct user_id)"
    found = ask(athena, f"SELECT {figures} FROM {TABLE}_files WHERE report_date >= DATE '2024-06-25' GROUP BY 1 ORDER BY 1")
    expected = []
    for day in DAYS[1:]:
        durations = [row["duration_ms"] for row in rows[day] if row["duration_ms"] is not None]
        users = {row["user_id"] for row in rows[day]}
        expected.append([str(day), str(len(rows[day])), str(len(durations)), str(sum(durations)), str(len(users))])
    assert [row[:4] + row[5:] for row in found] == expected, (found, expected)
    assert all(row[4].startswith(f"{day} 00:00:01") for row, day in zip(found, DAYS[1:])), found
    (number,) = ask(athena, f'SELECT count(*) FROM "{DATABASE}"."{TABLE}_files"')
    assert number == [str(sum(map(len, rows.values())))], number


def as_list(value):
    return value if isinstance(value, list) else [value]


class Policy:
    """A policy that the stack deployed."""

    def __init__(self, iam, arn):
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        self.statements = document["Statement"]

    def allows(self, action, resource, prefix=""):
        """True if a call is allowed; a list of a bucket has a prefix."""
        def is_met(condition):
            assert set(condition) <= {"StringLike"} and set(condition.get("StringLike", {})) <= {"s3:prefix"}, condition
            patterns = as_list(condition.get("StringLike", {}).get("s3:prefix", "*"))
            return any(fnmatch.fnmatchcase(prefix, pattern) for pattern in patterns)

        return any(
            any(fnmatch.fnmatchcase(action, pattern) for pattern in as_list(statement["Action"]))
            and any(fnmatch.fnmatchcase(resource, pattern) for pattern in as_list(statement["Resource"]))
            and is_met(statement.get("Condition", {}))
            for statement in self.statements
        )


def check_analysts(policy):
    bucket, glue = f"arn:aws:s3:::{BUCKET}", "arn:aws:glue:us-east-1:000000000000:"
    group = f"arn:aws:athena:us-east-1:000000000000:workgroup/{DATABASE}"
    file, log = f"{bucket}/curated/report_date=2024-06-25/batch-1.parquet", f"{bucket}/curated/_delta_log/1.json"
    for action, resource, prefix in [
        ("s3:GetBucketLocation", bucket, ""),
        ("s3:ListBucket", bucket, "curated/_delta_log/"),
        ("s3:ListBucket", bucket, "curated/report_date=2024-06-25/"),
        ("s3:GetObject", file, ""),
        ("s3:GetObject", log, ""),
        ("glue:GetDatabase", f"{glue}catalog", ""),
        ("glue:GetDatabase", f"{glue}database/default", ""),
        ("glue:GetDatabase", f"{glue}database/{DATABASE}", ""),
        ("glue:GetTable", f"{glue}table/{DATABASE}/{TABLE}", ""),
        ("glue:GetTable", f"{glue}table/{DATABASE}/{TABLE}_files", ""),
        ("athena:StartQueryExecution", group, ""),
        ("athena:GetQueryResults", group, ""),
        ("athena:GetQueryResultsStream", group, ""),
    ]:
        assert policy.allows(action, resource, prefix), f"analysts lack {action} on {resource} {prefix}"
    for action, resource, prefix in [
        ("s3:ListBucket", bucket, ""),
        ("s3:ListBucket", bucket, "incoming/"),
        ("s3:GetObject", f"{bucket}/incoming/streams1.csv", ""),
        ("s3:GetObject", f"{bucket}/archive/streams1.csv", ""),
        ("s3:PutObject", log, ""),
        ("s3:DeleteObject", file, ""),
        ("glue:GetTable", f"{glue}table/other/{TABLE}", ""),
        ("glue:UpdateTable", f"{glue}table/{DATABASE}/{TABLE}", ""),
        ("glue:DeleteTable", f"{glue}table/{DATABASE}/{TABLE}", ""),
        ("athena:StartQueryExecution", group.replace(DATABASE, "primary"), ""),
    ]:
        assert not policy.allows(action, resource, prefix), f"analysts have {action} on {resource} {prefix}"


def check_deletes(consumers):
    """Consumers delete what maintenance of the table deletes, and never what batches wrote."""
    curated = f"arn:aws:s3:::{BUCKET}/curated/"
    for key in ["compacted/report_date=2024-06-25/x.parquet", "_delta_log/00000000000000000000.json"]:
        assert consumers.allows("s3:DeleteObject", curated + key), key
    file = f"{curated}report_date=2024-06-25/batch-000000000001.parquet"
    assert not consumers.allows("s3:DeleteObject", file), "consumers may delete what batches wrote"


def deploy():
    """Deploys the template with a catalog, and returns the outputs of the stack."""
    parameters = {
        "BucketName": BUCKET,
        "DeletionProtection": "false",
        "CatalogTableName": TABLE,
        "CatalogDatabase": DATABASE,
        "CatalogFirstDate": FIRST,
    }
    command = [sys.executable, ROOT / "localstack/deploy.py", STACK, *(f"{name}={value}" for name, value in parameters.items())]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def take_catalog_away(client):
    """Deploys the same stack without its catalog: the tables are gone, and the files are not."""
    cloudformation = client("cloudformation")
    cloudformation.update_stack(
        StackName=STACK,
        UsePreviousTemplate=True,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": "CatalogTableName", "ParameterValue": ""},
            *({"ParameterKey": name, "UsePreviousValue": True} for name in ["BucketName", "DeletionProtection", "CatalogDatabase"]),
        ],
    )
    cloudformation.get_waiter("stack_update_complete").wait(StackName=STACK, WaiterConfig={"Delay": 0.3, "MaxAttempts": 100})
    databases = [database["Name"] for database in client("glue").get_databases()["DatabaseList"]]
    assert DATABASE not in databases, databases
    files = client("s3").list_objects_v2(Bucket=BUCKET, Prefix="curated/report_date=")["KeyCount"]
    assert files == 2 * len(DAYS), files


def check(endpoint):
    def client(service):
        return boto3.client(
            service, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )

    os.environ["AWS_ENDPOINT_URL"] = endpoint
    outputs = deploy()
    s3, iam = client("s3"), client("iam")
    s3.create_bucket(Bucket="results")
    rows = put_files(s3)
    check_entries(client("glue"), s3)
    check_answers(client("athena"), rows)
    group = client("athena").get_work_group(WorkGroup=DATABASE)["WorkGroup"]["Configuration"]
    assert group["ManagedQueryResultsConfiguration"]["Enabled"] and "ResultConfiguration" not in group, group
    check_analysts(Policy(iam, outputs["AnalystPolicyArn"]))
    check_deletes(Policy(iam, outputs["ConsumerPolicyArn"]))
    take_catalog_away(client)


def main():
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="music-streams-stack-") as state:
        port = free_port()
        processes = start_ministack(Path(state), port)
        try:
            check(f"http://127.0.0.1:{port}")
        finally:
            stop([process.pid for process in processes])
    print(f"catalog: columns, answers and rights are as they should be ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
