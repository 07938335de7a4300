"""Generates what the peers are compared on: a catalogue, listeners, and seeded listens in the shape of real ones.

`data.py --rows N --out DIR` writes `songs.csv`, `users.csv` and `streams-1.csv`. Listens are Zipf-distributed over 90,000
tracks; three in a hundred came late, from the evening before; a few name tracks or listeners that the catalogue lacks, and
one in a thousand rows is bad in one of the ways in which rows are.
"""

import argparse
import csv
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

SEED = 7
TRACKS, NEW_TRACKS, USERS, NEW_USERS, ARTISTS, GENRES = 90_000, 5_000, 50_000, 2_000, 31_000, 114
ALPHABET = np.array(list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))
# 2024-06-25T00:00:00Z
MIDNIGHT, DAY = 1_719_273_600, 86_400
CHUNK_ROWS = 1_000_000
BAD_LINES = [
    ",{track},{time}", "abc,{track},{time}", "-5,{track},{time}", "0,{track},{time}", "{user},,{time}",
    "{user},{track},2024-02-30 10:00:00", "{user},{track},not a time", "{user},{track},1999-12-31 23:59:59",
    "{user},{track}", "{user},{track},{time},more",
]


def words(random, count, least, most):
    """Texts of some letters and spaces."""
    lengths = random.integers(least, most + 1, count)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     eeeaaoit"))[random.integers(0, 40 - 1, int(lengths.sum()))]
    ends = np.cumsum(lengths)
    return ["".join(letters[end - length:end]).strip().title() or "Untitled" for end, length in zip(ends, lengths)]


def write_catalogue(out, random):
    """Writes both files of the catalogue; returns the track ids, those that it lacks last."""
    ids = ["".join(row) for row in ALPHABET[random.integers(0, 62, (TRACKS + NEW_TRACKS, 22))]]
    artists, names = words(random, ARTISTS, 4, 24), words(random, TRACKS, 4, 40)
    genres = [f"{name.lower()}-{number}" for number, name in enumerate(words(random, GENRES, 3, 10))]
    with (out / "songs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "track_name", "artists", "track_genre", "duration_ms"])
        for number in range(TRACKS):
            several = random.choice([1, 1, 1, 1, 1, 1, 2, 3])
            # An artist is named once: a list has each of its values once.
            of_track = ";".join(dict.fromkeys(artists[index] for index in random.integers(0, ARTISTS, several)))
            name = names[number]
            if number % 300 == 0:
                name = f'{name}, or "the {number}"'
            if number % 20_000 == 19_999:
                name = ""
            duration = int(random.integers(30_000, 600_000))
            lines = 1 if number % 5 else 2 + number % 2
            for genre in random.choice(GENRES, lines, replace=False):
                writer.writerow([ids[number], name, of_track, genres[genre], duration])
    countries = words(random, 200, 4, 14)
    with (out / "users.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "user_name", "user_age", "user_country", "created_at"])
        for user, (name, country) in enumerate(zip(words(random, USERS, 5, 20), random.integers(0, 200, USERS)), 1):
            name = f"{name}, Jr." if user % 100 == 0 else name
            country = "" if user % 5000 == 0 else countries[country]
            writer.writerow([user, name, 12 + user % 70, country, "2024-01-01"])
    return ids


def write_listens(out, rows, ids, random):
    """Writes the listens, chunk by chunk."""
    ids, order = pa.array(ids), random.permutation(TRACKS)
    shares = np.cumsum(1 / np.arange(1, TRACKS + 1))
    shares /= shares[-1]
    with (out / "streams-1.csv").open("wb") as file:
        file.write(b"user_id,track_id,listen_time\n")
        for start in range(0, rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, rows - start)
            tracks = order[np.searchsorted(shares, random.random(count))]
            tracks = np.where(random.random(count) < 0.005, TRACKS + random.integers(0, NEW_TRACKS, count), tracks)
            users = 1 + random.integers(0, USERS, count)
            users = np.where(random.random(count) < 0.002, USERS + 1 + random.integers(0, NEW_USERS, count), users)
            seconds = MIDNIGHT + random.integers(0, DAY, count) - DAY * (random.random(count) < 0.03)
            times = pc.strftime(pa.array(seconds, pa.timestamp("s")), "%Y-%m-%d %H:%M:%S")
            lines = pc.binary_join_element_wise(pc.cast(pa.array(users), pa.string()), ids.take(tracks), times, ",")
            bad = np.flatnonzero(random.random(count) < 0.001)
            lines = lines.to_numpy(zero_copy_only=False)
            for kind, place in enumerate(bad):
                user, track, time = lines[place].split(",")
                lines[place] = BAD_LINES[kind % len(BAD_LINES)].format(user=user, track=track, time=time)
            file.write("\n".join(lines).encode() + b"\n")


def generate(rows, out):
    """Writes everything, unless it is there already."""
    out.mkdir(parents=True, exist_ok=True)
    stamp, wanted = out / "stamp.json", {"rows": rows, "seed": SEED, "version": 2}
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return
    random = np.random.default_rng(SEED)
    write_listens(out, rows, write_catalogue(out, random), random)
    stamp.write_text(json.dumps(wanted))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    generate(arguments.rows, arguments.out)
