"""`make measure-telemetry`: the cost of telemetry in a batch of ten million rows, in CPU and time, with an OTLP receiver and
without in turn.

    telemetry.py [--rounds 5] [--files 20] [--megabytes 24.5]

Whole processes are measured, from the start to the end of the batch. The receiver discards what it gets.
"""

import argparse
import http.server
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "localstack"))
sys.path.insert(0, str(ROOT / "benches"))
import local  # noqa: E402
import memory  # noqa: E402


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received = 0

    def do_POST(self):
        Receiver.received += len(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def run(s3, sqs, files, catalogue, telemetry):
    """Runs one batch on a deployment of its own. Returns the CPU seconds, and the seconds of its transform stage."""
    environment = local.deploy(time.strftime("telemetry-%Y%m%d-%H%M%S") + f"-{random.randrange(1000)}")
    bucket = environment["MUSIC_STREAMS_BUCKET"]
    local.put(s3, environment, catalogue)
    for number, content in enumerate(files):
        s3.upload_fileobj(content.rewind(), bucket, f"incoming/streams{number:06}.csv")
    with tempfile.NamedTemporaryFile() as log:
        flags = ["--window", "10s", "--max-bytes", "2GiB", "--log-format", "json"]
        consumer = local.start({**environment, **telemetry}, *flags, stderr=log)
        while b'"batch done"' not in Path(log.name).read_bytes():
            if consumer.poll() is not None:
                sys.exit(f"the consumer ended:\n{Path(log.name).read_text()}")
            time.sleep(0.1)
        consumer.send_signal(signal.SIGTERM)
        _, status, usage = os.wait4(consumer.pid, 0)
        text = Path(log.name).read_text()
    if status or text.count('"batch done"') != 1:
        sys.exit(f"not one batch:\n{text}")
    return usage.ru_utime + usage.ru_stime, float(re.search(r"transform ([0-9.]+)", text).group(1))


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--files", type=int, default=20)
    arguments.add_argument("--megabytes", type=float, default=24.5)
    options = arguments.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with_telemetry = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "OTEL_METRIC_EXPORT_INTERVAL": "1000"}
    s3, sqs = local.clients()
    tracks, weights, catalogue = memory.catalogue(2000, 2000, 2000, uniform=False)
    rows = int(options.megabytes * 1_000_000) // memory.ROW_BYTES
    files = [memory.Listens(number, rows, tracks, weights, 2000) for number in range(options.files)]
    cpu, transform = {True: [], False: []}, {True: [], False: []}
    for round_number in range(options.rounds + 1):
        for telemetry in (True, False) if round_number % 2 else (False, True):
            figures = run(s3, sqs, files, catalogue, with_telemetry if telemetry else {})
            # The first round warms up.
            if round_number:
                cpu[telemetry].append(figures[0])
                transform[telemetry].append(figures[1])
        print(f"  round {round_number} of {options.rounds}", flush=True)
    print(f"one batch of {rows * options.files:,} rows, {options.rounds} rounds in turn, {Receiver.received:,} bytes of telemetry in all")
    for what, figures in (("CPU of the process", cpu), ("transform stage", transform)):
        pairs = [with_it / without for with_it, without in zip(figures[True], figures[False])]
        print(f"{what}: {statistics.median(figures[True]):.2f} s with, {statistics.median(figures[False]):.2f} s without telemetry; "
              f"ratio of pairs: median {statistics.median(pairs):.3f} ({min(pairs):.3f} to {max(pairs):.3f})")


main()
