"""Pipelines of their own for the tests of the page: deployed, fed and served on the stack that `stack.py run` has started."""

import csv
import http.client
import http.server
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "target"
sys.path.insert(0, str(ROOT / "localstack"))

import local
import sample
import stack

LOGS = TARGET / "browser"
# The steps of `make local`, on this stack in place of that of `make up`.
local.ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
local.AWS = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
HEADER = ["user_id", "track_id", "listen_time"]
PATIENCE_SECONDS = 90


def until(holds, what, seconds=PATIENCE_SECONDS, pause=0.05):
    """Waits until something holds, and returns it and the time that it took."""
    began = time.monotonic()
    while not (found := holds()):
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(pause)
    return found, time.monotonic() - began


class Pipeline:
    """A pipeline: the built-in one, or that of a definition. Its consumer runs until it is stopped."""

    def __init__(self, name, files=(), definition=None, patience=PATIENCE_SECONDS):
        LOGS.mkdir(parents=True, exist_ok=True)
        self.name, self.consumer = f"{name}-{os.getpid()}", None
        self.s3, self.sqs = local.clients()
        if definition:
            template = LOGS / f"{name}.yaml"
            template.write_text(local.ask({}, "definition", "template", str(definition)))
            self.environment = local.deploy(self.name, template)
        else:
            self.environment = local.deploy(self.name)
        files = dict(files)
        self.put({key: content for key, content in files.items() if key.startswith("reference/")})
        if definition:
            local.ask(self.environment, "definition", "apply", str(definition), "--yes")
        if files:
            with open(LOGS / f"{name}-consumer.log", "w") as log:
                self.consumer = local.start(self.environment, "--window", "1s", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self.put({key: content for key, content in files.items() if not key.startswith("reference/")})
            local.wait(self.s3, self.sqs, self.environment, self.consumer, patience)

    def put(self, files):
        local.put(self.s3, self.environment, files)

    def stop(self):
        if self.consumer and self.consumer.poll() is None:
            self.consumer.send_signal(signal.SIGTERM)
            self.consumer.wait(timeout=60)


class Server:
    """`music-streams serve` of a pipeline, at a free port of this machine."""

    def __init__(self, pipeline, *flags, dynamodb=None, port=None, refresh="1s"):
        self.environment = {**os.environ, **local.AWS, **pipeline.environment, "RUST_LOG": "info"}
        if dynamodb:
            self.environment["AWS_ENDPOINT_URL_DYNAMODB"] = dynamodb
        self.port = port or stack.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [str(local.BINARY), "serve", "--address", f"127.0.0.1:{self.port}", "--refresh", refresh, *flags]
        self.log = LOGS / f"serve-{pipeline.name}-{self.port}.log"
        self.start()

    def start(self):
        began = time.monotonic()
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"serve ended with status {self.process.returncode}: {self.log.read_text()[-2000:]}")
            return self.status("/live") == 200
        until(is_ready, "the start of serve", 30, 0.002)
        self.started_s = time.monotonic() - began

    def get(self, path, **headers):
        """Returns status, headers and body."""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=40) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def status(self, path):
        try:
            return self.get(path)[0]
        except OSError:
            return None

    def json(self, path):
        return json.loads(self.get(path)[2])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=20)


class Gate:
    """A proxy before DynamoDB. It counts calls, refuses those about some tables, or answers none."""

    def __init__(self):
        before = urlsplit(os.environ["AWS_ENDPOINT_URL_DYNAMODB"])
        self.refused, self.is_shut, self.calls, self.delay_s = (), False, 0, 0.0
        gate, lock = self, threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    gate.calls += 1
                if gate.is_shut:
                    self.close_connection = True
                    return
                time.sleep(gate.delay_s)
                if table := next((table for table in gate.refused if f'-{table}"'.encode() in body), None):
                    kind = "com.amazonaws.dynamodb.v20120810#AccessDeniedException"
                    text = f"User: reader is not authorized to perform: dynamodb:BatchGetItem on resource: {table}"
                    return self.reply(400, {"Content-Type": "application/x-amz-json-1.0"},
                                      json.dumps({"__type": kind, "Message": text}).encode())
                if not hasattr(self, "onward"):
                    self.onward = http.client.HTTPConnection(before.hostname, before.port)
                self.onward.request("POST", self.path, body, {name: self.headers[name] for name in self.headers if name != "Host"})
                answer = self.onward.getresponse()
                headers = {name: value for name, value in answer.getheaders() if name.lower() not in ("content-length", "transfer-encoding")}
                self.reply(answer.status, headers, answer.read())

            def reply(self, status, headers, body):
                self.send_response_only(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        class Front(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_):
                pass

        self.server = Front(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def sample_files():
    """The files of `make local`, and four weeks before them, so that 28 days have as many to be compared with."""
    files = sample.files()
    tracks = list(dict.fromkeys(row[1] for row in csv.reader(io.StringIO(files["reference/songs.csv"].decode()))))[1:]
    weeks = sample.history(tracks, random.Random(5), range(61, 33, -1))
    return {**files, **{f"incoming/before/{week}.csv": sample.table(HEADER, rows) for week, rows in weeks.items()}}


def hostile_files():
    """A catalogue and listens whose names want to be a script, a tag, another direction, or longer than any screen; and
    ids and genres that mean something in URLs. The longest are listened to most."""
    attack = "<script>window.hacked=1</script>"
    names = [
        attack, "</title></style>" + attack, "<img src=x onerror=window.hacked=2>", "\"'><svg onload=window.hacked=3>",
        "x" * 500, "Long words, " * 42, "‮desrever‬ ⁧txet⁩", "العربية ثم English ثم 123", "👩‍👩‍👧‍👦" * 60,
        "Z̷̢̛̰a̴̧̛l̶̡̛g̵̨̛o̸̧̕" * 20, "=cmd|' /C calc'!A0", "javascript:window.hacked=4", "&lt;b&gt;&amp;", "{{7*7}} ${7*7} <%= 7*7 %>",
        "two\nlines\tand a tab", " ", "夜に駆ける" * 30, "a\u0000b", "\u200b\u200b\u200b",
    ]
    ids = ["a/b?c=d#e%20f&g", "<script>window.hacked=5</script>", "\"quoted\"", "..", "%00%2e%2e", "'or'1'='1", "x" * 200]
    ids += [f"track{number}" for number in range(len(names) - len(ids))]
    genres = [attack, "r&b/soul?#%", "g" * 300, "‮erneg", "jazz"]
    songs = [[number, ids[number], f"{names[-1 - number]};{attack}", names[number], names[number], 1, 60_000 + number, "False",
              genres[number % len(genres)]] for number in range(len(names))]
    users = [[user, attack, 30, attack if user % 2 else "x" * 300, "2024-01-01"] for user in range(1, 40)]
    days = [f"2024-06-{day:02}" for day in range(16, 26)]
    rows = [[1 + (number * 7) % 39, ids[number % len(ids)], f"{days[number % len(days)]} {number % 24:02}:00:00"]
            for number in range(900) if number % len(ids) < len(ids) - number % 3]
    return {
        "reference/songs.csv": sample.table(sample.SONG_COLUMNS, songs),
        "reference/users.csv": sample.table(["user_id", "user_name", "user_age", "user_country", "created_at"], users),
        "incoming/hostile.csv": sample.table(HEADER, rows),
        # Its key and its contents are shown among what is set aside.
        "incoming/<script>window.hacked=6<script>.csv": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    }
