"""The results of `make bench` as a table: medians, throughput, and the change since a saved baseline.

    table.py [--compare NAME]
"""

import argparse
import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "target/criterion"


def in_units(rate, kind):
    """A rate a second, with the unit that the benchmark has."""
    unit, step = ("B", 1024) if kind == "Bytes" else ("", 1000)
    for prefix in ["", "k", "M", "G"]:
        if rate < step:
            break
        rate /= step
    return f"{rate:,.1f} {prefix}{'i' if unit and prefix else ''}{unit}/s"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--compare")
    options = arguments.parse_args()
    lines = []
    for folder in sorted(RESULTS.glob("*/*/new")):
        benchmark = json.loads((folder / "benchmark.json").read_text())
        median_ns = json.loads((folder / "estimates.json").read_text())["median"]["point_estimate"]
        (kind, amount), = benchmark["throughput"].items()
        line = [benchmark["full_id"], f"{median_ns / 1e6:,.3f} ms", in_units(amount / median_ns * 1e9, kind)]
        before = folder.parent / str(options.compare) / "estimates.json"
        if options.compare and before.exists():
            ratio = median_ns / json.loads(before.read_text())["median"]["point_estimate"]
            line.append(f"{ratio - 1:+.1%} time")
        lines.append(line)
    widths = [max((len(line[column]) for line in lines if len(line) > column), default=0) for column in range(4)]
    for line in lines:
        print("  ".join(text.ljust(width) if column == 0 else text.rjust(width)
                        for column, (text, width) in enumerate(zip(line, widths))).rstrip())


main()
