"""Sample data for `make local`: a small catalogue and a day of listening, always the same.

The files show what the pipeline has to handle: tracks in several genres, quotes, commas and non-Latin names, tracks
and listeners that the catalogue lacks, bad rows, a file that is not CSV, a gzip file, and a key that needs encoding.
"""

import csv
import gzip
import io
import random

GENRES = ["afrobeat", "ambient", "blues", "cumbia", "fado", "folk", "house", "jazz", "k-pop", "metal", "pop", "reggae"]
COUNTRIES = ["Brazil", "Ghana", "Iceland", "India", "Japan", "Peru", "Poland", "Senegal", "United States"]
FIRST = ["Silver", "Midnight", "Paper", "Velvet", "Northern", "Echo", "Saffron", "Winter", "Electric", "Hollow"]
SECOND = ["River", "Lantern", "Garden", "Signal", "Harbour", "Thunder", "Mirror", "Orchard", "Parade", "Tide"]
RARE = ['Say "Goodbye"', "Rain, Again", "夜に駆ける", "Çay ve Şarkı", "Песня", "Ólafur’s Song"]
SONG_COLUMNS = ["", "track_id", "artists", "album_name", "track_name", "popularity", "duration_ms", "explicit", "track_genre"]


def table(header, rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def name(choose):
    return choose.choice(RARE) if choose.random() < 0.05 else f"{choose.choice(FIRST)} {choose.choice(SECOND)}"


def files(seed=7):
    """Returns the files' contents by their keys in the bucket."""
    choose = random.Random(seed)
    tracks = ["".join(choose.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789", k=22)) for _ in range(600)]
    songs = []
    for track in tracks[:-20]:  # the last twenty have listens but are not in the catalogue
        song = [track, name(choose), f"{name(choose)} EP", name(choose), choose.randrange(100), choose.randrange(90_000, 420_000), "False"]
        for genre in choose.sample(GENRES, choose.choice([1, 1, 1, 1, 2, 3])):
            songs.append([len(songs), *song, genre])
    users = [[user, name(choose), choose.randrange(16, 80), choose.choice(COUNTRIES), "2024-01-01"] for user in range(1, 481)]
    weights = [1 / (rank + 3) for rank in range(len(tracks))]

    def listens(count, day="2024-06-25"):
        return [
            [min(500, int(choose.expovariate(1 / 120)) + 1), track,
             f"{day} {choose.randrange(24):02}:{choose.randrange(60):02}:{choose.randrange(60):02}"]
            for track in choose.choices(tracks, weights, k=count)
        ]

    header = ["user_id", "track_id", "listen_time"]
    bad_rows = listens(300)
    bad_rows[10][0] = "nobody"
    bad_rows[20][1] = ""
    bad_rows[30][2] = "yesterday at noon"
    bad_rows[40][2] = "1971-01-01 00:00:00"
    bad_rows[50] = bad_rows[50][:2]
    swapped = [[time.replace(" ", "T") + "Z", "player", track, user] for user, track, time in listens(400)]
    return {
        "reference/songs.csv": table(SONG_COLUMNS, songs),
        "reference/users.csv": table(["user_id", "user_name", "user_age", "user_country", "created_at"], users),
        "incoming/streams1.csv": table(header, listens(1500)),
        "incoming/streams2.csv": table(header, listens(1200)),
        "incoming/late/streams-of-the-day-before.csv": table(header, listens(250, "2024-06-24")),
        "incoming/other-columns.csv": table(["listen_time", "source", "track_id", "user_id"], swapped),
        "incoming/with-bad-rows.csv": table(header, bad_rows),
        "incoming/compressed.csv.gz": gzip.compress(table(header, listens(500)), mtime=0),
        "incoming/Hörer + Gäste.csv": table(header, listens(100)),
        "incoming/not-csv-at-all.csv": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(choose.randrange(256) for _ in range(400)),
    }
