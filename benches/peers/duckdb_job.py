"""The job in DuckDB: the file is parsed once into a table of coded rows, from which everything else is taken."""

import os

import duckdb

import job

ROWS = """
CREATE TABLE good AS
WITH lines AS (
    SELECT * FROM read_csv('{data}/streams-*.csv', header = false, skip = 1, delim = ',', quote = '', escape = '',
        columns = {{'user_id': 'VARCHAR', 'track_id': 'VARCHAR', 'listen_time': 'VARCHAR', 'more': 'VARCHAR'}},
        null_padding = true, strict_mode = false, filename = 'path', parallel = true, auto_detect = false)
), judged AS (
    SELECT try_cast(user_id AS BIGINT) AS user_id, track_id, try_cast(listen_time AS TIMESTAMP) AS listen_time, path,
        more IS NULL AND regexp_full_match(user_id, '[0-9]{{1,19}}') AND length(track_id) BETWEEN 1 AND 64
        AND regexp_full_match(track_id, '[!-~]+') AS shaped
    FROM lines
)
SELECT user_id, track_id, listen_time, path,
    coalesce(shaped AND user_id > 0 AND listen_time >= TIMESTAMP '2000-01-01'
        AND listen_time <= now()::TIMESTAMP + INTERVAL 1 DAY, false) AS is_good
FROM judged
"""
CATALOGUE = """
CREATE TABLE song AS
    SELECT track_id, first(track_name ORDER BY line) AS track_name, first(artists ORDER BY line) AS artists,
        first(duration_ms ORDER BY line) AS duration_ms, list(track_genre ORDER BY line) AS genres
    FROM (SELECT *, row_number() OVER () AS line FROM read_csv('{data}/songs.csv', header = true, delim = ',', quote = '"',
        columns = {{'track_id': 'VARCHAR', 'track_name': 'VARCHAR', 'artists': 'VARCHAR', 'track_genre': 'VARCHAR',
        'duration_ms': 'INTEGER'}}))
    GROUP BY track_id;
CREATE TABLE listener AS
    SELECT user_id, user_country FROM read_csv('{data}/users.csv', header = true, delim = ',', quote = '"', auto_detect = false,
        columns = {{'user_id': 'BIGINT', 'user_name': 'VARCHAR', 'user_age': 'INTEGER', 'user_country': 'VARCHAR',
        'created_at': 'VARCHAR'}});
"""
CURATED = """
COPY (
    SELECT good.user_id, good.track_id, listen_time::TIMESTAMPTZ AS listen_time, track_name, artists,
        array_to_string(genres, ';') AS track_genre, duration_ms, user_country,
        parse_filename(path) AS source_key, strftime(listen_time, '%Y-%m-%d') AS date
    FROM good LEFT JOIN song USING (track_id) LEFT JOIN listener USING (user_id) WHERE is_good
) TO '{out}/curated' (FORMAT parquet, PARTITION_BY (date), COMPRESSION zstd, COMPRESSION_LEVEL 1, WRITE_PARTITION_COLUMNS false)
"""
# Rows first become one row a track, listener and date: distinct counts are then counts, and the reports of days work on less.
PAIRS = """
CREATE TABLE pair AS
    SELECT good.track_id, user_id, listen_time::DATE AS date, count(*) AS listens FROM good WHERE is_good GROUP BY ALL
"""
REPORTS = {
    "tracks": """SELECT track_id, date, sum(listens)::BIGINT AS listens, count(*) AS unique_users,
        sum(listens * coalesce(duration_ms, 0))::BIGINT AS listening_ms
        FROM pair LEFT JOIN song USING (track_id) GROUP BY ALL""",
    "genres": """SELECT track_genre, date, sum(listens)::BIGINT AS listens, count(DISTINCT user_id) AS unique_users,
        sum(listens * coalesce(duration_ms, 0))::BIGINT AS listening_ms
        FROM (SELECT pair.*, duration_ms, unnest(coalesce(genres, ['unknown'])) AS track_genre
              FROM pair LEFT JOIN song USING (track_id)) GROUP BY ALL""",
    "listeners": """SELECT user_id, date, sum(listens)::BIGINT AS listens, count(*) AS unique_tracks,
        sum(listens * coalesce(duration_ms, 0))::BIGINT AS listening_ms
        FROM pair LEFT JOIN song USING (track_id) GROUP BY ALL""",
    "artists": """SELECT artist, date, sum(listens)::BIGINT AS listens, count(DISTINCT user_id) AS unique_users,
        sum(listens * coalesce(duration_ms, 0))::BIGINT AS listening_ms
        FROM (SELECT pair.*, duration_ms, unnest(coalesce(string_split(artists, ';'), ['unknown'])) AS artist
              FROM pair LEFT JOIN song USING (track_id)) GROUP BY ALL""",
    "countries": """SELECT coalesce(user_country, 'unknown') AS user_country, date, sum(listens)::BIGINT AS listens,
        count(DISTINCT user_id) AS unique_users, sum(listens * coalesce(duration_ms, 0))::BIGINT AS listening_ms
        FROM pair LEFT JOIN song USING (track_id) LEFT JOIN listener USING (user_id) GROUP BY ALL""",
    "days": """SELECT date, sum(listens)::BIGINT AS listens, count(DISTINCT user_id) AS unique_users,
        count(DISTINCT track_id) AS unique_tracks, sum(listens * coalesce(duration_ms, 0))::BIGINT AS listening_ms
        FROM pair LEFT JOIN song USING (track_id) GROUP BY ALL""",
    "hours": """SELECT date_trunc('hour', listen_time) AS hour, count(*) AS listens,
        count(DISTINCT user_id) AS unique_users, sum(coalesce(duration_ms, 0))::BIGINT AS listening_ms
        FROM good LEFT JOIN song USING (track_id) WHERE is_good GROUP BY ALL""",
}


def begin():
    session = duckdb.connect()
    session.execute(f"SET threads = {os.cpu_count()}; SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
    return session


def work(session, data, out):
    for statement in (CATALOGUE, ROWS, CURATED, PAIRS):
        session.execute(statement.format(data=data, out=out))
    for name, report in REPORTS.items():
        session.execute(f"COPY ({report}) TO '{out}/reports/{name}.parquet' (FORMAT parquet, COMPRESSION zstd)")
    return session.execute("SELECT count(*) FILTER (is_good), count(*) FILTER (NOT is_good) FROM good").fetchone()


if __name__ == "__main__":
    job.run("duckdb", duckdb.__version__, begin, work)
