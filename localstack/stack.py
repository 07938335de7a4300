#!/usr/bin/env python3
"""The local AWS: installs, starts and stops it.

    stack.py install            build and install everything pinned, once, into .tools/
    stack.py install-checks     the readers and linters of the tests;  install-deny: cargo-deny;  install-fuzz: cargo-fuzz;
                                install-peers: what the benchmarks compare with;  install-sbom: cargo-cyclonedx;
                                install-browser: what drives the page, and a browser
    stack.py up                 start LocalStack on 127.0.0.1:4566 (returns at once when it is already up)
    stack.py down               stop what `up` started
    stack.py run COMMAND...     start a private stack on free ports, run COMMAND against it, stop it
    stack.py run --ministack COMMAND...   the same on ministack

Host mode is the default: genuine LocalStack from PyPI, with dynoxide (a DynamoDB on SQLite) behind it, because
LocalStack's own DynamoDB needs a download from outside the package registries. Where a Docker engine answers,
`up` uses compose.yaml instead. Everything listens on loopback only.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parent / ".tools"
STATE = TOOLS / "state"
# Tables are files, to outlive a DynamoDB that a test kills, but in memory: on a disk each write waits for it. Elsewhere
# than on Linux they are on a disk.
MEMORY = Path("/dev/shm")
TABLES = (MEMORY if MEMORY.is_dir() else STATE) / f"music-streams-{os.getuid()}"
PORT = 4566
DYNAMODB_PORT = 4567
DYNOXIDE_VERSION = "3.2.0"
DENY_VERSION = "0.20.2"
FUZZ_VERSION = "0.13.2"
SBOM_VERSION = "0.5.9"
START_SECONDS = 90


def say(text):
    print(f"  {text}", flush=True)


def step(what, command, log, environment=None):
    """Runs a slow command, shows that it is alive, and shows its log when it fails."""
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        shown = 0
        while process.poll() is None:
            time.sleep(0.2)
            seconds = int(time.monotonic() - started)
            if seconds >= shown + 5:
                shown = seconds
                last = log.read_text(errors="replace").strip().splitlines()
                say(f"{what} … {seconds} s   {last[-1].strip()[:80] if last else ''}")
    if process.returncode:
        print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
        sys.exit(f"{what} failed; the whole log is in {log}")
    say(f"{what}: done in {time.monotonic() - started:.0f} s")


def install_python(name, requirements, extra=()):
    """A virtual environment from a pinned list, made again only when the list changes."""
    place = TOOLS / name
    wanted = hashlib.sha256(requirements.read_bytes())
    for path in extra:
        for file in sorted(path.glob("*.*")):
            wanted.update(file.read_bytes())
    stamp = place / "installed"
    if stamp.exists() and stamp.read_text() == wanted.hexdigest():
        return
    shutil.rmtree(place, ignore_errors=True)
    step(f"{name}: Python environment", [sys.executable, "-m", "venv", str(place)], TOOLS / "log" / f"{name}-venv.log")
    pip = [str(place / "bin/pip"), "install", "--disable-pip-version-check"]
    step(f"{name}: packages of {requirements.name}", [*pip, "--no-deps", "-r", str(requirements)], TOOLS / "log" / f"{name}.log")
    for path in extra:
        # Built from a copy, so that no build leftovers appear in the sources.
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(path, Path(copy) / path.name)
            step(f"{name}: {path.name}", [*pip, "--no-deps", str(Path(copy) / path.name)], TOOLS / "log" / f"{name}-{path.name}.log")
    stamp.write_text(wanted.hexdigest())


# What crates are released with takes minutes to link, and is for programs that run for longer than it takes to build them.
# One code unit for a crate takes the least time of the processor.
QUICK_BUILD = {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "1"}


def install_crate(name, version, what, flags=(), opt_level="1"):
    place = TOOLS / name
    stamp = place / "installed"
    if stamp.exists() and stamp.read_text() == version:
        return
    command = ["cargo", "install", what, "--version", version, "--locked", "--force", "--root", str(place), *flags]
    environment = {**QUICK_BUILD, "CARGO_PROFILE_RELEASE_OPT_LEVEL": opt_level}
    step(f"{name} {version}: building (some minutes, once)", command, TOOLS / "log" / f"{name}.log", environment)
    stamp.write_text(version)


def install_localstack():
    """LocalStack, and the AWS client that deploys to it."""
    install_python("stack", HERE / "requirements.txt", [HERE / "dynamodb_provider"])


def install():
    install_localstack()
    features = ["--no-default-features", "--features", "native-sqlite,http-server,cli"]
    install_crate("dynoxide", DYNOXIDE_VERSION, "dynoxide-rs", features)


def install_deny():
    install_crate("deny", DENY_VERSION, "cargo-deny", opt_level="0")


def install_fuzz():
    install_crate("fuzz", FUZZ_VERSION, "cargo-fuzz")


def install_sbom():
    install_crate("sbom", SBOM_VERSION, "cargo-cyclonedx")


def install_checks():
    install_python("checks", HERE.parent / "tests/requirements.txt")


def install_peers():
    install_python("peers", HERE.parent / "benches/peers/requirements.txt")


def install_browser():
    """What drives the page and asks the API, and Debian's browser, with which fonts its screenshots are the same."""
    install_python("browser", HERE.parent / "tests/browser/requirements.txt")
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return
    packages = ["chromium", "chromium-driver", "fonts-noto-cjk"]
    if os.getuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"there is no chromium or no chromedriver here; install them: sudo apt-get install {' '.join(packages)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    step("browser: apt-get update", ["apt-get", "update"], TOOLS / "log/browser-update.log", quiet)
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    step(f"browser: {', '.join(packages)}", install, TOOLS / "log/browser-apt.log", quiet)


def docker_answers():
    if not shutil.which("docker"):
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=2).read()
        return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def await_answer(process, what, url, log):
    started = time.monotonic()
    while not answers(url):
        if process.poll() is not None or time.monotonic() - started > START_SECONDS:
            print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
            sys.exit(f"{what} did not start within {START_SECONDS} s; its log is {log}")
        time.sleep(0.2)


def launch(command, environment, log):
    # A session of its own: Ctrl-C at the terminal is for the consumer, not for the stack.
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
        stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
    )


def start(state, tables, port, dynamodb_port):
    """Starts dynoxide and LocalStack; returns their processes."""
    state.mkdir(parents=True, exist_ok=True)
    dynamodb = f"http://127.0.0.1:{dynamodb_port}"
    log = state / "dynoxide.log"
    processes = [launch(
        [str(TOOLS / "dynoxide/bin/dynoxide"), "serve", "--host", "127.0.0.1", "--port", str(dynamodb_port),
         "--db-path", str(tables / "dynamodb.sqlite")], {}, log)]
    await_answer(processes[0], "dynoxide", dynamodb, log)
    log = state / "localstack.log"
    processes.append(launch(
        [str(TOOLS / "stack/bin/python"), "-m", "localstack.runtime.main"],
        {
            # An IPv4-mapped address: LocalStack's default server ignores a plain IPv4 host and binds 0.0.0.0.
            "GATEWAY_LISTEN": f"[::ffff:127.0.0.1]:{port}",
            "LOCALSTACK_HOST": f"localhost:{port}",
            "OVERRIDE_IN_DOCKER": "0",
            "FILESYSTEM_ROOT": str(state / "localstack"),
            "XDG_CACHE_HOME": str(TOOLS / "cache"),
            "DISABLE_EVENTS": "1",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DNS_ADDRESS": "0",
            "SQS_ENDPOINT_STRATEGY": "path",
            "PROVIDER_OVERRIDE_DYNAMODB": "dynoxide",
            "DYNOXIDE_ENDPOINT": dynamodb,
            "LS_LOG": "error",
        }, log))
    await_answer(processes[1], "LocalStack", f"http://127.0.0.1:{port}/_localstack/health", log)
    return processes


def start_ministack(state, port):
    state.mkdir(parents=True, exist_ok=True)
    log = state / "ministack.log"
    processes = [launch(
        [str(TOOLS / "checks/bin/ministack")],
        {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "localhost"}, log)]
    await_answer(processes[0], "ministack", f"http://127.0.0.1:{port}/", log)
    return processes


def alive(pid):
    try:
        os.kill(pid, 0)
        # A child of ours that has ended but is not yet collected still answers the signal.
        return not Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return False


def stop(pids):
    for pid in reversed(pids):
        if alive(pid):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def recorded():
    """What `up` started and is still there: {"pids", "docker"}."""
    record = STATE / "stack.json"
    if not record.exists():
        return None
    stack = json.loads(record.read_text())
    if stack["docker"] or all(alive(pid) for pid in stack["pids"]):
        return stack
    stop(stack["pids"])
    record.unlink()
    return None


def up():
    if recorded() and answers(f"http://127.0.0.1:{PORT}/_localstack/health"):
        say(f"LocalStack is up on http://127.0.0.1:{PORT}")
        return
    docker = docker_answers()
    if docker:
        install_localstack()
        subprocess.run(["docker", "compose", "-f", str(HERE / "compose.yaml"), "up", "--wait"], check=True)
        pids = []
    else:
        install()
        for port in (PORT, DYNAMODB_PORT):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    sys.exit(f"port {port} is taken by another program; stop it, then run this again")
        shutil.rmtree(STATE, ignore_errors=True)
        shutil.rmtree(TABLES, ignore_errors=True)
        TABLES.mkdir(parents=True)
        pids = [process.pid for process in start(STATE, TABLES, PORT, DYNAMODB_PORT)]
    STATE.mkdir(parents=True, exist_ok=True)
    (STATE / "stack.json").write_text(json.dumps({"pids": pids, "docker": docker}))
    say(f"LocalStack is up on http://127.0.0.1:{PORT}")


def stop_server():
    """Stops the server of the page that `make local` started, if it is still there."""
    record = STATE / "server.json"
    if not record.exists():
        return
    pid = json.loads(record.read_text())["pid"]
    command = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], stdout=subprocess.PIPE, text=True).stdout
    # The number may be another process's by now.
    if "music-streams serve" in command:
        stop([pid])


def down():
    stop_server()
    stack = recorded()
    if not stack:
        say("nothing is running")
        return
    if stack["docker"]:
        subprocess.run(["docker", "compose", "-f", str(HERE / "compose.yaml"), "down"], check=True)
    stop(stack["pids"])
    (STATE / "stack.json").unlink()
    shutil.rmtree(TABLES, ignore_errors=True)
    say("LocalStack is down")


def run(command):
    """A private stack on free ports for the length of one command."""
    ministack = command[0] == "--ministack"
    if ministack:
        command = command[1:]
    install()
    install_checks()
    memory = MEMORY if MEMORY.is_dir() else None
    with (tempfile.TemporaryDirectory(prefix="music-streams-stack-") as state,
          tempfile.TemporaryDirectory(prefix="music-streams-stack-", dir=memory) as tables):
        port = free_port()
        if ministack:
            processes = start_ministack(Path(state), port)
            dynamodb_port = port
        else:
            dynamodb_port = free_port()
            processes = start(Path(state), Path(tables), port, dynamodb_port)
        try:
            environment = {
                **os.environ,
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                # Straight to dynoxide: the same tables, eight times the throughput of the way through the gateway.
                "AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{dynamodb_port}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
                "MUSIC_STREAMS_TEST_STACK": "ministack" if ministack else "localstack",
                # For tests that freeze or kill it: DynamoDB first.
                "MUSIC_STREAMS_TEST_STACK_PIDS": " ".join(str(process.pid) for process in processes),
            }
            code = subprocess.run(command, env=environment).returncode
        finally:
            stop([process.pid for process in processes])
    sys.exit(code)


if __name__ == "__main__":
    verb, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    match verb, rest:
        case "install", []:
            install()
        case "install-checks", []:
            install_checks()
        case "install-deny", []:
            install_deny()
        case "install-fuzz", []:
            install_fuzz()
        case "install-sbom", []:
            install_sbom()
        case "install-peers", []:
            install_peers()
        case "install-browser", []:
            install_browser()
        case "up", []:
            up()
        case "down", []:
            down()
        case "run", [_, *_]:
            run(rest)
        case _:
            sys.exit(__doc__)
