#!/usr/bin/env python3
"""Runs Schemathesis against a server: cases made from the OpenAPI document, good and bad, each answer checked.

    tests/http/run.py target/release/caffis-chat                    the short form
    tests/http/run.py target/release/caffis-chat --examples 1000    the full form

Decides: red if docs/openapi.json is no OpenAPI 3.1, if any check of Schemathesis fails, if the server answered with 500 or above, logged an error, or did
not live to the end. The tool lives in an environment of its own, made on first use in `.check/schemathesis-venv`.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
VENV = ROOT / ".check" / "schemathesis-venv"
PACKAGES = ["schemathesis==4.32.5", "openapi-spec-validator==0.9.0"]
READY_S_MAX = 20
# Of those who run the service.
ADMIN_TOKEN = "a-token-of-the-tests-0123456789-abcdef"
# They stop the server, or end what other cases need; or are signed, which no case is.
LEFT_OUT = ["admin_drain", "admin_users_erase", "webhooks_map", "webhooks_main_app"]
# A rate that no case reaches.
NO_LIMIT = "100000000"
# The cases of a run that is to be the same every time.
SEED = "20240229"


def install():
    """Makes the environment once; a half made one is made again."""
    done = VENV / "installed"
    wanted = "\n".join(PACKAGES)
    if done.exists() and done.read_text() == wanted:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    quiet = ["-q", "--disable-pip-version-check"]
    subprocess.run([VENV / "bin/pip", "install", *quiet, *PACKAGES], check=True)
    done.write_text(wanted)


def start_server(binary, data_dir, log):
    """Starts a server and waits until it is ready."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = dict(
        os.environ,
        CAFFIS_LISTEN=f"127.0.0.1:{port}",
        CAFFIS_DATA_DIR=data_dir,
        CAFFIS_MODE="development",
        CAFFIS_SHARDS="2",
        CAFFIS_ADMIN_TOKEN=ADMIN_TOKEN,
        CAFFIS_ADMIN_FAILURES_PER_MIN="1000000",
        CAFFIS_SENDS_PER_10S=NO_LIMIT,
        CAFFIS_COMMANDS_PER_10S=NO_LIMIT,
        CAFFIS_UPLOADS_PER_DAY="1000000",
        CAFFIS_UPLOAD_BYTES_PER_DAY="1000000000000000",
    )
    server = subprocess.Popen([binary], env=environment, stdout=subprocess.DEVNULL, stderr=log)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + READY_S_MAX
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1):
                return server, url
        except OSError:
            time.sleep(0.05)
    server.kill()
    sys.exit("http: the server was not ready")


def ask(url, path, body, token=None):
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def furnish(url):
    """Users, rooms, messages and reports that there are; the first user's token, rooms, others and reports."""
    users = [ask(url, "/v1/demo/login", {"name": name}) for name in ["Ada", "Bob", "Eve", "Tom"]]
    token, others = users[0]["token"], [user["user_id"] for user in users[1:]]
    rooms = []
    for body in (
        {"kind": "direct", "member_ids": others[:1]},
        {"kind": "group", "member_ids": others, "title": "A group"},
        {"kind": "group", "member_ids": others[:2], "title": "Another"},
    ):
        room = ask(url, "/v1/rooms", body, token)["room"]["room_id"]
        rooms.append(room)
        for number in range(8):
            message = {"kind": "text", "text": f"Message {number}"}
            ask(url, f"/v1/rooms/{room}/messages", message, token)
        for seq in range(2, 10):
            ask(url, f"/v1/rooms/{room}/messages/{seq}/report", {}, token)
    request = urllib.request.Request(f"{url}/v1/admin/reports?limit=200")
    request.add_header("authorization", f"Bearer {ADMIN_TOKEN}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        reports = [report["report_id"] for report in json.loads(answer.read())["reports"]]
    return token, rooms, others, reports


def server_errors(url):
    """How many answers of 500 and above each route gave, by the server's own count."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r'^caffis_http_responses_total\{(.*status="5xx".*)\} (\d+)$', text, re.MULTILINE)
    return collections.Counter({labels: int(count) for labels, count in found})


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary", help="caffis-chat")
    arguments.add_argument("--examples", type=int, default=25, help="cases per operation and phase")
    arguments.add_argument("--seed", default=SEED)
    options, further = arguments.parse_known_args()
    install()
    subprocess.run([VENV / "bin/openapi-spec-validator", ROOT / "docs" / "openapi.json"], check=True)
    with tempfile.TemporaryDirectory(prefix="caffis-http-") as folder:
        log_path = pathlib.Path(folder) / "log"
        with open(log_path, "w") as log:
            server, url = start_server(os.path.abspath(options.binary), f"{folder}/data", log)
        try:
            # Until it was ready, /readyz rightly said 503 to who asked.
            before = server_errors(url)
            token, rooms, others, reports = furnish(url)
            environment = dict(
                os.environ,
                SCHEMATHESIS_HOOKS="hooks",
                PYTHONPATH=str(HERE),
                CAFFIS_TEST_ROOMS=",".join(rooms),
                CAFFIS_TEST_USERS=",".join(others),
                CAFFIS_TEST_REPORTS=",".join(reports),
                CAFFIS_TEST_ADMIN_TOKEN=ADMIN_TOKEN,
            )
            command = [VENV / "bin/schemathesis", "--config-file", HERE / "schemathesis.toml", "run"]
            command += [f"{url}/v1/openapi.json", "-H", f"Authorization: Bearer {token}"]
            # One worker: CPython 3.11 parses in two threads at once to a SystemError now and then
            # (python/cpython#106905).
            for operation in LEFT_OUT:
                command += ["--exclude-operation-id", operation]
            command += ["--checks", "all", "--continue-on-failure", "--workers", "1"]
            command += ["--max-examples", str(options.examples), "--seed", options.seed]
            command += ["--no-color", "--generation-database", "none", *further]
            good = subprocess.run(command, env=environment, cwd=folder).returncode == 0
            errors = server_errors(url) - before
            alive = server.poll() is None
        finally:
            if server.poll() is None:
                server.send_signal(signal.SIGTERM)
                try:
                    server.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    server.kill()
        bad_lines = [line for line in log_path.read_text().splitlines() if " ERROR " in line or " panicked " in line]
        for line in bad_lines[:10]:
            print(line)
        for labels, count in errors.items():
            print(f"http: {count} answers of 500 and above: {labels}")
    print(f"http: {errors.total()} answers of 500 and above, {len(bad_lines)} errors logged, alive: {alive}")
    sys.exit(0 if good and alive and not errors and not bad_lines else 1)


if __name__ == "__main__":
    main()
