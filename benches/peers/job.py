"""What the peers' jobs share: their arguments, and the line in which they say what they did."""

import argparse
import json
import os
import pathlib
import time


def run(system, version, begin, work):
    """Begins (which is start-up), works on `--data` and `--out`, and prints how long it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    (arguments.out / "reports").mkdir(parents=True, exist_ok=True)
    session = begin()
    began = time.time()
    rows, rejected = work(session, arguments.data, arguments.out)
    ended = time.time()
    startup = began - float(os.environ.get("BENCH_STARTED_AT", began))
    print(json.dumps({
        "system": system, "version": version, "startup_s": startup, "job_s": ended - began,
        "rows": rows, "rejected": rejected,
    }), flush=True)
