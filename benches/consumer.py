"""A consumer under measurement: its log, line by line, and its own CPU time at each line."""

import datetime
import json
import signal
import subprocess
import sys
import threading

from stacks import cpu_seconds


class Consumer:
    """A running `music-streams run`, of any build."""

    def __init__(self, binary, flags, environment):
        command = [str(binary), "run", "--log-format", "json", *flags]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.lines, self.rest = [], ""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for text in self.process.stderr:
            try:
                cpu = cpu_seconds(self.process.pid)
                line = json.loads(text)
            except (ValueError, OSError):
                self.rest = (self.rest + text.decode(errors="replace"))[-2000:]
                continue
            if line.get("level") in ("WARN", "ERROR"):
                print(f"  a consumer says: {line['message']}", file=sys.stderr, flush=True)
            at = datetime.datetime.fromisoformat(line["timestamp"]).timestamp()
            self.lines.append({**line, "cpu_s": cpu, "at": at})

    def said(self, message):
        return [line for line in list(self.lines) if line["message"] == message]

    def check(self):
        if self.process.poll() is not None:
            sys.exit(f"a consumer ended with status {self.process.returncode}: {self.lines[-3:]} {self.rest}")

    def cpu(self):
        return cpu_seconds(self.process.pid)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=120):
            sys.exit("a consumer did not end cleanly")
        self.reader.join()


def stages(line):
    """The stages of a batch and their seconds, from its summary line: `claim 0.101 transform 0.020 ...`."""
    words = line["seconds"].split()
    return {stage: float(seconds) for stage, seconds in zip(words[::2], words[1::2])}
