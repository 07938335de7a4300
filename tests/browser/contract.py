"""The API against its own OpenAPI document: the document by openapi-spec-validator, the server by schemathesis, which asks
what the document allows, and what it does not."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import openapi_spec_validator

HERE = Path(__file__).resolve().parent
SECONDS = 45
EXAMPLES = 25


def document_problems(server):
    """What is wrong with the document itself."""
    document = server.json("/api/v1/openapi.json")
    try:
        openapi_spec_validator.validate(document)
    except Exception as problem:  # every kind of it is a finding
        return [f"the document: {type(problem).__name__}: {str(problem)[:400]}"]
    reports = {report["report"] for report in server.json("/api/v1")["reports"]}
    series = {path.removeprefix("/api/v1/series/") for path in document["paths"] if path.startswith("/api/v1/series/")}
    return [] if series == reports else [f"the document has the series {sorted(series)}, the index {sorted(reports)}"]


def answer_problems(server, log, seconds=SECONDS, examples=EXAMPLES):
    """What schemathesis finds, and its own summary."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(HERE / "schemathesis.toml"), "run", f"{server.url}/api/v1/openapi.json", "--url", server.url,
        "--checks", "all", "--max-examples", str(examples), "--max-time", str(seconds), "--seed", "1", "--workers", "2",
        "--request-timeout", "40", "--continue-on-failure", "--phases", "examples,coverage,fuzzing", "--no-color",
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)}
    with tempfile.TemporaryDirectory() as folder, log.open("w") as output:
        ended = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=4 * seconds + 60)
    text = log.read_text()
    cases = re.findall(r"^\s*(\d[\d,]*) generated.*$", text, re.M)
    if ended.returncode == 0:
        return [], "".join(cases[-1:])
    # Of each operation: what is wrong, what was answered, and how to ask it again.
    found = []
    for line in text.split(" FAILURES ")[-1].split(" SUMMARY ")[0].splitlines():
        if re.search(r"^_+ .* _+$|^- \w+\d+ |^\[\d+\]|\"detail\"|^ +curl |Invalid component|- violates", line):
            found.append(f"schemathesis: {line.strip(' _')[:240]}")
    return found or [f"schemathesis ended with status {ended.returncode}"], "".join(cases[-1:])


def media_type_problems(server):
    """Each form of an answer has the same rows, and says what it is."""
    problems = []
    for report in server.json("/api/v1")["reports"]:
        if not (path := report["top"]):
            continue
        path = f"{path}?days=7&limit=5&against=none"
        rows = server.json(path)["items"]
        lines = server.get(f"{path}&format=ndjson")[2].decode().splitlines()
        table = server.get(f"{path}&format=csv")[2].decode()
        if [json.loads(line)[report["key"]] for line in lines] != [row[report["key"]] for row in rows]:
            problems.append(f"{path}: JSON and NDJSON have different items")
        if len(table.strip().splitlines()) < len(rows) + 1:
            problems.append(f"{path}: CSV has {len(table.splitlines())} lines for {len(rows)} items")
        for accept, wanted in (("text/csv", "text/csv"), ("application/x-ndjson", "application/x-ndjson"), ("*/*", "application/json")):
            got = server.get(path, Accept=accept)[1]["Content-Type"]
            if not got.startswith(wanted):
                problems.append(f"{path}: Accept {accept} is answered by {got}")
    return problems
