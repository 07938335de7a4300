"""The container image: builds it without a registry, and tries it on a local stack.

    image.py build FOLDER           an image of the Dockerfile's last stage, from what lies in FOLDER/dist
    stack.py run ... image.py check  runs it as ECS would: not as root, nothing of its file system writable

Docker where its engine answers; else Debian's podman, buildah and runc, which are installed where that is allowed.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "localstack"))
from stack import docker_answers  # noqa: E402

IMAGE = "localhost/music-streams:built-here"
PACKAGES = ["podman", "buildah", "runc"]
READY_SECONDS = 20
STOP_SECONDS = 10


def install_engine():
    if docker_answers() or all(shutil.which(package) for package in PACKAGES):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        sys.exit(f"to build and run the image, start a Docker engine or install {', '.join(PACKAGES)}")
    print(f"  installing {', '.join(PACKAGES)}", flush=True)
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update", "-qq"], check=True, **quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], check=True, **quiet)


def engine():
    if docker_answers():
        return ["docker"]
    # Works without systemd, overlayfs and the second version of control groups.
    return ["podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"]


def build(folder):
    install_engine()
    if docker_answers():
        command = ["docker", "buildx", "build", "--load"]
    else:
        command = ["buildah", "--storage-driver", "vfs", "bud", "--isolation", "chroot", "--format", "docker"]
    # The first stage is not built, but taken from the folder.
    command += ["--build-context", f"build={folder}", "-t", IMAGE, str(ROOT)]
    built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if built.returncode:
        sys.exit(f"the image cannot be built:\n{built.stdout}")
    (image,) = json.loads(subprocess.run([*engine(), "image", "inspect", IMAGE], check=True, capture_output=True).stdout)
    print(f"  {IMAGE}: {image['Size'] / 2**20:.1f} MiB, {image['Architecture']}, user {image['Config']['User']}")


class Container:
    """A container that runs the consumer as the service's task definition does."""

    def __init__(self, name, environment, arguments):
        self.name = name
        command = [*engine(), "run", "--name", name, "--network", "host", "--read-only", "--cap-drop", "ALL",
                   "--security-opt", "no-new-privileges", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        for variable, value in environment.items():
            command += ["-e", f"{variable}={value}"]
        self.file = tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".log")
        self.started = time.monotonic()
        self.process = subprocess.Popen([*command, IMAGE, "run", *arguments], stdout=subprocess.DEVNULL, stderr=self.file)

    @property
    def log(self):
        return Path(self.file.name).read_text()

    def says(self, text, seconds):
        """Waits for a line of the log and gives it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.log.splitlines():
                if text in line:
                    return json.loads(line)
            if self.process.poll() is not None:
                break
            time.sleep(0.005)
        sys.exit(f"the container does not say {text!r}:\n{self.log}")

    def ask(self, *arguments):
        return subprocess.run([*engine(), "exec", self.name, "/music-streams", *arguments], capture_output=True, text=True)

    def stop(self):
        """SIGTERM; gives the exit status and the seconds that it took."""
        asked = time.monotonic()
        subprocess.run([*engine(), "kill", "--signal", "TERM", self.name], check=True, stdout=subprocess.DEVNULL)
        return self.process.wait(timeout=60), time.monotonic() - asked

    def remove(self):
        subprocess.run([*engine(), "rm", "-f", self.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def expect(holds, problem):
    if not holds:
        sys.exit(f"the image is not as it should be: {problem}")


def check():
    import boto3

    import sample

    settings = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    s3, sqs = boto3.client("s3", **settings), boto3.client("sqs", **settings)
    name = f"image-{os.getpid()}"
    deployed = subprocess.run(
        [sys.executable, str(ROOT / "localstack/deploy.py"), name, f"BucketName={name}", f"QueueName={name}",
         f"TablePrefix={name}-"], check=True, stdout=subprocess.PIPE)
    outputs = json.loads(deployed.stdout)
    queue = outputs["QueueUrl"]
    names = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"]
    environment = {
        **{variable: os.environ[variable] for variable in names},
        "MUSIC_STREAMS_BUCKET": name,
        "MUSIC_STREAMS_QUEUE_URL": queue,
        "MUSIC_STREAMS_TABLE_PREFIX": f"{name}-",
    }
    files = sample.files()
    for key, content in files.items():
        s3.put_object(Bucket=name, Key=key, Body=content)

    def messages():
        wanted = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=wanted)["Attributes"]
        return [int(found[wanted_name]) for wanted_name in wanted]

    def incoming():
        return [item["Key"] for item in s3.list_objects_v2(Bucket=name, Prefix="incoming/").get("Contents", [])]

    def until(holds, problem, seconds=60):
        deadline = time.monotonic() + seconds
        while not holds():
            expect(time.monotonic() < deadline, problem)
            time.sleep(0.1)

    (image,) = json.loads(subprocess.run([*engine(), "image", "inspect", IMAGE], check=True, capture_output=True).stdout)
    size = image["Size"] / 2**20
    expect(image["Config"]["User"].split(":")[0] not in ("", "0", "root"), "it runs as root")

    containers = []

    def start(*arguments):
        containers.append(Container(f"{name}-{len(containers)}", environment, arguments))
        return containers[-1]

    try:
        # The sample, end to end; and how long it takes to be ready, which the log's own times tell without the engine's part.
        container = start("--window", "3s")
        ready = container.says('"message":"ready"', READY_SECONDS)
        uptime = ready.get("startup_ms")
        whole = time.monotonic() - container.started
        (state,) = json.loads(subprocess.run([*engine(), "inspect", container.name], check=True, capture_output=True).stdout)
        status = Path(f"/proc/{state['State']['Pid']}/status").read_text()
        uids = re.search(r"^Uid:\s+(.*)$", status, re.M).group(1).split()
        expect("0" not in uids, f"its process has the user ids {uids}")
        health = container.ask("health", "--ready")
        expect(health.returncode == 0 and health.stdout == "ready\n", f"health: {health.stdout}{health.stderr}")
        health = container.ask("health")
        expect(health.returncode == 0 and health.stdout == "live\n", f"health: {health.stdout}{health.stderr}")
        until(lambda: not incoming() and messages() == [0, 0], "the sample is not worked off")
        done = container.says('"message":"batch done"', 30)
        status, seconds = container.stop()
        expect(status == 0, f"it ended with status {status}:\n{container.log}")
        auditor = start_audit(environment, container.name)
        expect("all agree" in auditor, f"the auditor: {auditor}")

        # SIGTERM in mid-window: nothing of the window is done, and nothing of it is lost.
        s3.put_object(Bucket=name, Key="incoming/late.csv", Body=b"user_id,track_id,listen_time\n1,late,2024-06-25 12:00:00\n")
        until(lambda: messages()[0] == 1, "the file is not announced")
        container = start("--window", "5m")
        container.says('"message":"ready"', READY_SECONDS)
        until(lambda: messages() == [0, 1], "the message is not received")
        status, seconds = container.stop()
        expect(status == 0, f"it ended with status {status}:\n{container.log}")
        expect(seconds < STOP_SECONDS, f"it took {seconds:.1f} s to stop")
        expect(messages()[0] == 1 and incoming() == ["incoming/late.csv"], "what was in the window is not back in the queue")
        container = start("--window", "1s")
        until(lambda: not incoming() and messages() == [0, 0], "what was in the window is not worked off")
        expect(container.stop()[0] == 0, container.log)
        auditor = start_audit(environment, container.name)
        expect("all agree" in auditor, f"the auditor: {auditor}")
    finally:
        for container in containers:
            container.remove()
    print(f"  image of {size:.1f} MiB; as user {uids[0]}, on a file system that cannot be written: ready {uptime} ms after its start "
          f"({whole:.1f} s with the engine), {done['rows']} rows in one batch, and all agree")
    print(f"  SIGTERM in mid-window: status 0 after {seconds:.1f} s, the message back in the queue, nothing lost")


def start_audit(environment, name):
    """The auditor, in the same image, with a place for its temporary files."""
    command = [*engine(), "run", "--rm", "--name", f"{name}-audit", "--network", "host", "--read-only", "--cap-drop", "ALL",
               "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096",
               "--tmpfs", "/tmp:rw,mode=1777", "-e", "TMPDIR=/tmp"]
    for variable, value in environment.items():
        command += ["-e", f"{variable}={value}"]
    audit = subprocess.run([*command, IMAGE, "verify", "--date", "2024-06-25"], capture_output=True, text=True)
    return audit.stdout + audit.stderr


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    match sys.argv[1:]:
        case ["build", folder]:
            build(folder)
        case ["check"]:
            check()
        case _:
            sys.exit(__doc__)
