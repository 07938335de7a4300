"""The job in PySpark: the file is parsed once and the good rows cached, as two writes and seven reports follow from them."""

import os

import pyspark
from pyspark.sql import SparkSession, functions as f, types as t

import job

LINES = "user_id string, track_id string, listen_time string, more string"
TIME = "yyyy-MM-dd HH:mm:ss"


def begin():
    session = (
        SparkSession.builder.master(f"local[{os.cpu_count()}]").config("spark.driver.memory", "6g")
        .config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false").config("spark.sql.shuffle.partitions", 2 * os.cpu_count())
        .config("spark.sql.session.timeZone", "UTC").config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.hadoop.parquet.compression.codec.zstd.level", "1").config("spark.sql.ansi.enabled", "false")
        .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
        .config("spark.sql.autoBroadcastJoinThreshold", 64 << 20).getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    session.range(10).count()
    return session


def work(session, data, out):
    read = session.read.option("escape", '"')
    songs = read.csv(f"{data}/songs.csv", schema="track_id string, track_name string, artists string, track_genre string, "
                     "duration_ms int", header=True).coalesce(1).withColumn("line", f.monotonically_increasing_id())
    songs = f.broadcast(songs.groupBy("track_id").agg(
        f.min_by("track_name", "line").alias("track_name"), f.min_by("artists", "line").alias("artists"),
        f.min_by("duration_ms", "line").alias("duration_ms"),
        f.transform(f.array_sort(f.collect_list(f.struct("line", "track_genre"))), lambda pair: pair.track_genre)
        .alias("genres"),
    ).cache())
    users = f.broadcast(read.csv(
        f"{data}/users.csv", header=True,
        schema="user_id long, user_name string, user_age int, user_country string, created_at string",
    ).select("user_id", "user_country"))

    lines = session.read.csv(
        f"{data}/streams-*.csv", schema=LINES, header=True, quote="", mode="PERMISSIVE", enforceSchema=True,
    )
    # Where time is not of the format, the value is null; a month of 30 days has no 31st because the format is strict.
    user_id, time = f.col("user_id").cast("long"), f.to_timestamp("listen_time", TIME)
    judged = lines.select(
        user_id.alias("user_id"), "track_id", time.alias("listen_time"),
        f.element_at(f.split(f.input_file_name(), "/"), -1).alias("source_key"),
        f.coalesce(
            f.col("more").isNull() & f.col("user_id").rlike("^[0-9]{1,19}$") & (user_id > 0)
            & f.col("track_id").rlike("^[!-~]{1,64}$") & time.isNotNull() & (time >= f.lit("2000-01-01").cast("timestamp"))
            & (time <= f.current_timestamp() + f.expr("INTERVAL 1 DAY")), f.lit(False),
        ).alias("is_good"),
    ).cache()
    rows = judged.where("is_good").withColumn("date", f.to_date("listen_time"))

    rows.join(songs, "track_id", "left").join(users, "user_id", "left").select(
        "user_id", "track_id", "listen_time", "track_name", "artists", f.array_join("genres", ";").alias("track_genre"),
        "duration_ms", "user_country", "source_key", f.date_format("date", "yyyy-MM-dd").alias("date"),
    ).write.partitionBy("date").parquet(f"{out}/curated")

    pairs = rows.groupBy("track_id", "user_id", "date").agg(f.count("*").alias("listens")).join(
        songs.select("track_id", "duration_ms", "genres", "artists"), "track_id", "left",
    ).withColumn("ms", f.col("listens") * f.coalesce(f.col("duration_ms"), f.lit(0)).cast(t.LongType())).cache()
    listens, ms = f.sum("listens").alias("listens"), f.sum("ms").alias("listening_ms")
    genre = f.explode(f.coalesce("genres", f.array(f.lit("unknown")))).alias("track_genre")
    artist = f.explode(f.coalesce(f.split("artists", ";"), f.array(f.lit("unknown")))).alias("artist")
    country = f.coalesce("user_country", f.lit("unknown")).alias("user_country")
    unique_users = f.count_distinct("user_id").alias("unique_users")
    of_hours = rows.join(songs.select("track_id", "duration_ms"), "track_id", "left").groupBy(
        f.date_trunc("hour", "listen_time").alias("hour"))
    reports = {
        "tracks": pairs.groupBy("track_id", "date").agg(listens, f.count("*").alias("unique_users"), ms),
        "listeners": pairs.groupBy("user_id", "date").agg(listens, f.count("*").alias("unique_tracks"), ms),
        "genres": pairs.select(genre, "user_id", "date", "listens", "ms").groupBy("track_genre", "date")
        .agg(listens, unique_users, ms),
        "artists": pairs.select(artist, "user_id", "date", "listens", "ms").groupBy("artist", "date")
        .agg(listens, unique_users, ms),
        "countries": pairs.join(users, "user_id", "left").select(country, "user_id", "date", "listens", "ms")
        .groupBy("user_country", "date").agg(listens, unique_users, ms),
        "days": pairs.groupBy("date").agg(listens, unique_users, f.count_distinct("track_id").alias("unique_tracks"), ms),
        "hours": of_hours.agg(f.count("*").alias("listens"), unique_users,
                              f.sum(f.coalesce("duration_ms", f.lit(0)).cast(t.LongType())).alias("listening_ms")),
    }
    for name, report in reports.items():
        report.write.parquet(f"{out}/reports/{name}")
    counts = dict(judged.groupBy("is_good").count().collect())
    return counts.get(True, 0), counts.get(False, 0)


if __name__ == "__main__":
    job.run("pyspark", pyspark.__version__, begin, work)
