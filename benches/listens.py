"""The listens that the benchmarks publish, seeded: a catalogue in the shape of a real one, and listeners who play
twenty tracks in one go, one every five minutes, drawn by Zipf's law with an exponent of 1."""

import bisect
import csv
import io
import itertools
import random

TRACKS, USERS, ARTISTS, GENRES = 90_000, 50_000, 31_000, 114
IN_ONE_GO, WINDOW_SECONDS, DAY = 20, 300, "2024-06-25"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
WORDS = ["Silver", "Midnight", "Paper", "Velvet", "Northern", "Echo", "Saffron", "Winter", "Electric", "Hollow",
         "River", "Lantern", "Garden", "Signal", "Harbour", "Thunder", "Mirror", "Orchard", "Parade", "Tide"]


def track_id(track):
    return "".join(random.Random(track).choices(ALPHABET, k=22))


def catalogue():
    """`songs.csv` and `users.csv`. A track has 1.2 genres, names and artists some 17 characters."""
    choose = random.Random(7)
    songs, users = io.StringIO(), io.StringIO()
    songs_csv = csv.writer(songs, lineterminator="\n")
    songs_csv.writerow(["track_id", "track_name", "artists", "track_genre", "duration_ms"])
    for track in range(TRACKS):
        name = " ".join(choose.sample(WORDS, choose.choice([1, 2, 2, 3, 4])))
        artists = f"Artist {choose.randrange(ARTISTS)}"
        duration = choose.randrange(90_000, 420_000)
        for genre in choose.sample(range(GENRES), choose.choice([1, 1, 1, 1, 2])):
            songs_csv.writerow([track_id(track), name, artists, f"genre-{genre:03}", duration])
    users_csv = csv.writer(users, lineterminator="\n")
    users_csv.writerow(["user_id", "user_country"])
    users_csv.writerows([user, f"Country {user % 150}"] for user in range(1, USERS + 1))
    return {"reference/songs.csv": songs.getvalue().encode(), "reference/users.csv": users.getvalue().encode()}


class Listens:
    """Draws listens."""

    def __init__(self, seed):
        self.choose = random.Random(seed)
        self.weights = list(itertools.accumulate(1 / rank for rank in range(1, TRACKS + 1)))
        self.ids = {}

    def track(self):
        rank = bisect.bisect(self.weights, self.choose.random() * self.weights[-1])
        return self.ids.setdefault(rank, track_id(rank))

    def row(self, user, second):
        second = int(second) % 86_400
        return f"{user},{self.track()},{DAY} {second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}\n"

    def window(self, rows, listeners=USERS):
        """A file of one window: each of its listeners plays one track."""
        users = self.choose.sample(range(1, max(listeners, rows) + 1), rows)
        begin = self.choose.randrange(86_400 - WINDOW_SECONDS)
        return self.file(self.row(user, begin + self.choose.randrange(WINDOW_SECONDS)) for user in users)

    def day(self, listens, windows):
        """The files of a day, one for each window, as they would arrive: every listener once in the day, for twenty
        tracks."""
        files = [[] for _ in range(windows)]
        for user in range(1, listens // IN_ONE_GO + 1):
            begin = self.choose.randrange(86_400)
            for track in range(IN_ONE_GO):
                second = (begin + track * 300) % 86_400
                files[second * windows // 86_400].append(self.row(user, second))
        return [self.file(rows) for rows in files]

    @staticmethod
    def file(rows):
        return ("user_id,track_id,listen_time\n" + "".join(rows)).encode()


def own(folder):
    """The files of a folder as `make local DATA=` takes them: the catalogue, and the listening files."""
    reference = {f"reference/{name}": (folder / name).read_bytes() for name in ("songs.csv", "users.csv")}
    streams = sorted([*folder.glob("streams*.csv"), *folder.glob("streams*.csv.gz")])
    return reference, [path.read_bytes() for path in streams]
