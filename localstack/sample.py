"""Sample data for `make local`, always the same: a small catalogue and five weeks of listening, of which the last day is
the most varied; and for the definitions in `samples/`, the orders of a shop and the access log of a content delivery network.

The files show what the pipeline has to handle: tracks in several genres, by several artists or none, quotes, commas and non-Latin names, tracks
and listeners that the catalogue lacks, bad rows, a file that is not CSV, a gzip file, and a key that needs encoding.
"""

import csv
import datetime
import gzip
import io
import json
import math
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
    choose, guests = random.Random(seed), random.Random(seed + 1)
    tracks = ["".join(choose.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789", k=22)) for _ in range(600)]
    songs = []
    for track in tracks[:-20]:  # the last twenty have listens but are not in the catalogue
        artists = [name(choose), *(name(guests) for _ in range(2))][:guests.choice([0, 1, 1, 1, 1, 1, 2, 3])]
        song = [track, ";".join(artists), f"{name(choose)} EP", name(choose), choose.randrange(100), choose.randrange(90_000, 420_000), "False"]
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
    weeks = history(tracks, random.Random(seed + 1))
    swapped = [[time.replace(" ", "T") + "Z", "player", track, user] for user, track, time in listens(400)]
    return {
        "reference/songs.csv": table(SONG_COLUMNS, songs),
        "reference/users.csv": table(["user_id", "user_name", "user_age", "user_country", "created_at"], users),
        "incoming/streams1.csv": table(header, listens(1500)),
        "incoming/streams2.csv": table(header, listens(1200)),
        **{f"incoming/weeks/{week}.csv": table(header, rows) for week, rows in weeks.items()},
        "incoming/late/streams-of-the-day-before.csv": table(header, listens(250, "2024-06-24")),
        "incoming/other-columns.csv": table(["listen_time", "source", "track_id", "user_id"], swapped),
        "incoming/with-bad-rows.csv": table(header, bad_rows),
        "incoming/compressed.csv.gz": gzip.compress(table(header, listens(500)), mtime=0),
        "incoming/Hörer + Gäste.csv": table(header, listens(100)),
        "incoming/not-csv-at-all.csv": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(choose.randrange(256) for _ in range(400)),
    }


def history(tracks, choose, ages=range(33, -1, -1)):
    """Returns the listens of the 34 days before the last one, or of other ones, by week: more at weekends and in the
    evening, and with tracks that come and go."""
    weeks = {}
    last = datetime.date(2024, 6, 24)
    hours = [3, 2, 1, 1, 1, 2, 4, 7, 9, 8, 8, 9, 10, 10, 9, 10, 12, 15, 17, 18, 17, 14, 9, 5]
    rhythm = [1.0, 0.96, 0.98, 1.04, 1.22, 1.42, 1.3]
    for age in ages:
        day = last - datetime.timedelta(days=age)
        count = int(2700 * rhythm[day.weekday()] * (1 + 0.006 * (33 - age)) * choose.uniform(0.95, 1.05))
        weights = [(1 + 0.9 * math.sin(rank + age / 9)) / (rank + 3) for rank in range(len(tracks))]
        rows = weeks.setdefault(f"{day:%G-W%V}", [])
        for track, hour in zip(choose.choices(tracks, weights, k=count), choose.choices(range(24), hours, k=count)):
            user = int(choose.expovariate(1 / 150)) % 500 + 1
            rows.append([user, track, f"{day} {hour:02}:{choose.randrange(60):02}:{choose.randrange(60):02}"])
    return weeks


def orders(seed=11):
    """Orders of two days as lines of JSON: some sent twice, one line cut off, an amount with too many places."""
    choose = random.Random(seed)
    products = {f"sku-{number:03}": (name(choose), "|".join(choose.sample(["home", "light", "music", "garden"], choose.choice([0, 1, 1, 2]))))
                for number in range(60)}
    start = datetime.datetime(2026, 3, 28, 20, tzinfo=datetime.UTC)

    def lines(count, separator="\n"):
        found = []
        for _ in range(count):
            cents = choose.randrange(500, 20_000)
            order = {
                "event_id": f"e{choose.randrange(10**9)}",
                "occurred_at": (start + datetime.timedelta(seconds=choose.randrange(36 * 3600))).isoformat(),
                "type": choose.choice(["placed"] * 8 + ["returned", "viewed"]),
                "order_id": f"o{choose.randrange(4000)}",
                "sku": f"sku-{min(choose.randrange(63), choose.randrange(63)):03}",
                "customer": {"id": f"c{choose.randrange(300)}", **({"country": choose.choice(COUNTRIES)} if choose.random() < 0.9 else {})},
                "quantity": choose.randrange(1, 5),
                "amount": f"{cents / 100:.2f}" if choose.random() < 0.5 else cents / 100,
            }
            found += [json.dumps(order)] * (2 if choose.random() < 0.01 else 1)
        return separator.join(found)

    broken = lines(50).splitlines()
    broken[7] = broken[7][:60]
    broken[11] = broken[11].replace('"quantity": ', '"quantity": -')
    return {
        "reference/products.csv": table(["sku", "title", "category"], [[sku, *product] for sku, product in products.items()]),
        "incoming/2026/orders-1.jsonl": lines(1500).encode(),
        "incoming/2026/orders-2.jsonl.gz": gzip.compress(lines(1200).encode(), mtime=0),
        # As a delivery stream writes them: one after the other.
        "incoming/2026/orders-3.json": lines(800, "").encode(),
        "incoming/2026/broken.jsonl": "\n".join(broken).encode(),
    }


def requests(seed=13):
    """An access log of some hours, compressed, in several files, one of which names its columns in another order."""
    choose = random.Random(seed)
    fields = ["date", "time", "x-edge-location", "sc-bytes", "c-ip", "cs-method", "cs-uri-stem", "sc-status",
              "x-edge-result-type", "time-taken"]
    pages = [f"/articles/{number}.html" for number in range(80)]
    start = datetime.datetime(2026, 3, 1, 22, tzinfo=datetime.UTC)

    def log(count, fields):
        lines = ["#Version: 1.0", f"#Fields: {' '.join(fields)}"]
        for _ in range(count):
            time = start + datetime.timedelta(seconds=choose.randrange(6 * 3600))
            line = {
                "date": f"{time:%Y-%m-%d}", "time": f"{time:%H:%M:%S}", "cs-method": "GET",
                "x-edge-location": choose.choice(["FRA56-P4", "GRU3-C1", "IAD89-C3", "NRT12-C2"]),
                "sc-bytes": choose.randrange(300, 90_000), "c-ip": f"198.51.100.{choose.randrange(250)}",
                "cs-uri-stem": pages[min(choose.randrange(80), choose.randrange(80))],
                "sc-status": choose.choice(["200"] * 9 + ["404", "502", "-"]) if choose.random() < 0.1 else "200",
                "x-edge-result-type": choose.choice(["Hit"] * 6 + ["RefreshHit", "Miss", "Error"]),
                "time-taken": f"{choose.randrange(2000) / 1000:.3f}",
            }
            lines.append("\t".join(str(line[field]) for field in fields))
        return gzip.compress("\n".join(lines).encode() + b"\n", mtime=0)

    return {
        "incoming/E1.2026-03-01-22.gz": log(1500, fields),
        "incoming/E1.2026-03-01-23.gz": log(1400, fields),
        "incoming/E1.2026-03-02-00.gz": log(1600, fields[2:] + fields[:2]),
    }
