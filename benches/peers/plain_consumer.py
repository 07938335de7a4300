"""What a Python team would write: receive messages, read their files into Polars, write Parquet, update one report item after
the other, move the files, delete the messages. Nothing in it survives a crash at the wrong moment.

    plain_consumer.py --bucket B --queue-url U --table-prefix P --files N [--gather 10]

Ends after N files, and prints the seconds that they took. A round gathers so many messages; SQS gives out ten at a time.
"""

import argparse
import datetime
import io
import json
import time
import urllib.parse
import uuid

import boto3
import polars as pl


def receive(sqs, queue_url, gather):
    messages = []
    while len(messages) < gather:
        batch = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
        if not batch:
            break
        messages += batch
    return messages


def update(dynamodb, table, key, listens, milliseconds, names):
    dynamodb.update_item(
        TableName=table, Key={name: {"S": value} for name, value in key.items()},
        UpdateExpression="ADD listens :listens, listening_ms :ms, members :members",
        ExpressionAttributeValues={":listens": {"N": str(listens)}, ":ms": {"N": str(milliseconds)}, ":members": {"SS": names}},
    )


def main():
    parser = argparse.ArgumentParser()
    for name in ("bucket", "queue-url", "table-prefix"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--files", type=int, required=True)
    parser.add_argument("--gather", type=int, default=10)
    options = parser.parse_args()
    s3, sqs, dynamodb = boto3.client("s3"), boto3.client("sqs"), boto3.client("dynamodb")
    read = lambda key: s3.get_object(Bucket=options.bucket, Key=key)["Body"].read()
    songs = pl.read_csv(read("reference/songs.csv")).group_by("track_id").agg(
        pl.col("track_name", "artists", "duration_ms").first(), pl.col("track_genre").alias("genres"))
    users = pl.read_csv(read("reference/users.csv")).select("user_id", "user_country")

    files, seconds, items = 0, 0.0, 0
    while files < options.files:
        messages = receive(sqs, options.queue_url, options.gather)
        # As for the other, only the work on what was received counts.
        began = time.monotonic()
        records = [record for message in messages for record in json.loads(message["Body"]).get("Records", [])]
        keys = [urllib.parse.unquote_plus(record["s3"]["object"]["key"]) for record in records]
        if keys:
            rows = pl.concat([pl.read_csv(read(key)).with_columns(source_key=pl.lit(key)) for key in keys])
            rows = rows.with_columns(pl.col("listen_time").str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False))
            rows = rows.filter((pl.col("user_id") > 0) & pl.col("listen_time").is_not_null())
            rows = rows.join(songs, on="track_id", how="left").join(users, on="user_id", how="left")
            rows = rows.with_columns(date=pl.col("listen_time").dt.date().cast(pl.String))
            for (date,), of_day in rows.group_by("date"):
                parquet = io.BytesIO()
                of_day.with_columns(pl.col("genres").list.join(";")).write_parquet(parquet, compression="zstd", compression_level=1)
                s3.put_object(Bucket=options.bucket, Key=f"curated/date={date}/{uuid.uuid4()}.parquet", Body=parquet.getvalue())
            for report, rows_of_it, key, member in [
                ("track", rows, "track_id", "user_id"), ("listener", rows, "user_id", "track_id"),
                ("genre", rows.explode("genres"), "genres", "user_id"),
            ]:
                figures = rows_of_it.group_by(key, "date").agg(
                    pl.len(), pl.col("duration_ms").sum(), pl.col(member).cast(pl.String).unique().alias("members"))
                for id_, date, listens, milliseconds, members in figures.iter_rows():
                    name = "track_genre" if key == "genres" else key
                    update(dynamodb, f"{options.table_prefix}{report}_level_reports",
                           {name: str(id_ or "unknown"), "report_date": date}, listens, milliseconds, members)
                    items += 1
            today = datetime.date.today()
            for key in keys:
                archived = f"archive/{today}/{key.removeprefix('incoming/')}"
                s3.copy_object(Bucket=options.bucket, Key=archived, CopySource={"Bucket": options.bucket, "Key": key})
                s3.delete_object(Bucket=options.bucket, Key=key)
        for start in range(0, len(messages), 10):
            entries = [{"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
                       for index, message in enumerate(messages[start:start + 10])]
            sqs.delete_message_batch(QueueUrl=options.queue_url, Entries=entries)
        files += len(keys)
        seconds += time.monotonic() - began
    print(json.dumps({"files": files, "seconds": seconds, "updates": items}))


main()
