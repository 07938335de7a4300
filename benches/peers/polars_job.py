"""The job in Polars: lines are read lazily and judged, the good rows kept once and used for everything."""

import datetime

import polars as pl

import job

SCHEMA = {"user_id": pl.Int64, "track_id": pl.String, "listen_time": pl.String, "more": pl.String}


def work(_, data, out):
    songs = pl.scan_csv(data / "songs.csv", schema_overrides={"duration_ms": pl.Int32}).group_by("track_id").agg(
        pl.col("track_name").first(), pl.col("artists").first(), pl.col("duration_ms").first(),
        pl.col("track_genre").alias("genres"),
    ).collect()
    users_of = pl.scan_csv(data / "users.csv").select("user_id", "user_country").collect()
    time = pl.col("listen_time").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
    least, greatest = datetime.datetime(2000, 1, 1), datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    judged = pl.scan_csv(
        data / "streams-*.csv", has_header=False, skip_rows=1, schema=SCHEMA, quote_char=None, include_file_paths="path",
        truncate_ragged_lines=True, ignore_errors=True, missing_columns="insert",
    ).with_columns(
        shaped=pl.col("track_id").str.len_bytes().is_between(1, 64) & pl.col("more").is_null(), listen_time=time,
    ).with_columns(is_good=(
        pl.col("shaped") & (pl.col("user_id") > 0)
        & pl.col("listen_time").is_between(least, greatest + datetime.timedelta(days=1))
    ).fill_null(False))
    lines = judged.select("user_id", "track_id", "listen_time", "path", "is_good").collect(engine="streaming")
    rows = lines.lazy().filter("is_good").drop("is_good").with_columns(date=pl.col("listen_time").dt.date())

    enriched = rows.join(songs.lazy(), on="track_id", how="left").join(users_of.lazy(), on="user_id", how="left").select(
        "user_id", "track_id", pl.col("listen_time").dt.replace_time_zone("UTC"), "track_name", "artists",
        pl.col("genres").list.join(";").alias("track_genre"), "duration_ms", "user_country",
        pl.col("path").str.split("/").list.last().alias("source_key"), pl.col("date").cast(pl.String),
    )
    curated = enriched.sink_parquet(
        pl.PartitionBy(out / "curated", key="date", include_key=False), mkdir=True, lazy=True,
        compression="zstd", compression_level=1,
    )
    # Rows first become one row a track, listener and date: distinct counts are then counts.
    duration_ms = pl.col("duration_ms").fill_null(0).cast(pl.Int64)
    pairs = rows.group_by("track_id", "user_id", "date").agg(listens=pl.len().cast(pl.Int64)).join(
        songs.lazy().select("track_id", "duration_ms", "genres", artist=pl.col("artists").str.split(";")),
        on="track_id", how="left",
    ).with_columns(ms=pl.col("listens") * duration_ms)
    listens, ms = pl.col("listens").sum(), pl.col("ms").sum().alias("listening_ms")
    users, tracks = pl.col("user_id").n_unique().alias("unique_users"), pl.col("track_id").n_unique().alias("unique_tracks")
    in_countries = pairs.join(users_of.lazy(), on="user_id", how="left").with_columns(pl.col("user_country").fill_null("unknown"))
    in_hours = rows.with_columns(hour=pl.col("listen_time").dt.truncate("1h")).join(
        songs.lazy().select("track_id", "duration_ms"), on="track_id", how="left",
    )
    reports = {
        "tracks": pairs.group_by("track_id", "date").agg(listens, pl.len().alias("unique_users"), ms),
        "listeners": pairs.group_by("user_id", "date").agg(listens, pl.len().alias("unique_tracks"), ms),
        "genres": pairs.with_columns(pl.col("genres").fill_null(["unknown"])).explode("genres").group_by("genres", "date")
        .agg(listens, users, ms).rename({"genres": "track_genre"}),
        "artists": pairs.with_columns(pl.col("artist").fill_null(["unknown"])).explode("artist").group_by("artist", "date")
        .agg(listens, users, ms),
        "countries": in_countries.group_by("user_country", "date").agg(listens, users, ms),
        "days": pairs.group_by("date").agg(listens, users, tracks, ms),
        "hours": in_hours.group_by("hour").agg(pl.len().alias("listens"), users, duration_ms.sum().alias("listening_ms")),
    }
    sinks = [report.sink_parquet(out / f"reports/{name}.parquet", compression="zstd", lazy=True)
             for name, report in reports.items()]
    pl.collect_all([curated, *sinks], engine="streaming")
    good = int(lines["is_good"].sum())
    return good, lines.height - good


if __name__ == "__main__":
    job.run("polars", pl.__version__, lambda: None, work)
