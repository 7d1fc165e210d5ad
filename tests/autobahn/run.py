#!/usr/bin/env python3
"""Runs the Autobahn WebSocket suite against an echo build and judges its report.

    tests/autobahn/run.py target/check/caffis-chat-echo
    tests/autobahn/run.py --url ws://127.0.0.1:9001      a server that already runs

Decides: red unless every case without compression was run and ended OK, or INFORMATIONAL where the
suite itself promises nothing better. `wstest` exits 0 whatever it found, so the verdict comes from
its report, and a case that is missing there counts as failed: a runner that loses its server on the
way must not look green.

The suite needs Python 2.7, which is why it lives in an environment of its own, made on first use in
`.check/autobahn-venv`.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECK = ROOT / ".check"
VENV = CHECK / "autobahn-venv"
REPORT = CHECK / "autobahn-report"
AGENT = "caffis-chat"

# The last virtualenv that still makes an environment for Python 2.7, and the last suite.
MAKER_PACKAGES = ["virtualenv==20.15.1"]
SUITE_PACKAGES = ["autobahntestsuite==0.8.2", "wsaccel==0.6.2"]

# Cases 1 to 11; 12 and 13 test permessage-deflate, which the server does not offer.
CASES_EXCLUDED = ["12.*", "13.*"]
CASES_EXPECTED = 301
# 7.1.6 (close in the middle of a large message) and 7.13.1, 7.13.2 (undefined close codes): the
# RFC leaves the outcome open and the suite only reports what it saw.
CASES_INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

READY_S_MAX = 20
# 18 s on a quiet machine with two cores; a server that hangs costs the suite its own timeouts.
SUITE_S_MAX = 600


def python27():
    """The path of a Python 2.7, or an error that says where one was looked for."""
    versions = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
    candidates = [os.environ.get("PYTHON27"), shutil.which("python2.7")]
    candidates += sorted(str(path) for path in versions.glob("2.7*/bin/python2.7"))
    for candidate in candidates:
        # A shim of pyenv answers `which` but not a call, so each candidate is called.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    sys.exit(f"autobahn: no Python 2.7 (set PYTHON27; looked in PATH and {versions})")


def install():
    """Makes the environment once; a half made one is made again."""
    done = VENV / "installed"
    wanted = "\n".join(MAKER_PACKAGES + SUITE_PACKAGES)
    if done.exists() and done.read_text() == wanted:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    maker = CHECK / "virtualenv-maker"
    quiet = ["-q", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "venv", "--clear", maker], check=True)
    subprocess.run([maker / "bin/pip", "install", *quiet, *MAKER_PACKAGES], check=True)
    subprocess.run([maker / "bin/virtualenv", "-q", "-p", python27(), VENV], check=True)
    warnings_off = dict(os.environ, PYTHONWARNINGS="ignore")
    subprocess.run(
        [VENV / "bin/pip", "install", *quiet, *SUITE_PACKAGES], check=True, env=warnings_off
    )
    done.write_text(wanted)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_server(binary, data_dir):
    """Starts the echo build and waits until it says that it is ready."""
    port = free_port()
    environment = dict(
        os.environ,
        CAFFIS_LISTEN=f"127.0.0.1:{port}",
        CAFFIS_DATA_DIR=data_dir,
        CAFFIS_MODE="development",
    )
    server = subprocess.Popen([binary], env=environment)
    deadline = time.monotonic() + READY_S_MAX
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"autobahn: the server ended with code {server.returncode} before it was ready")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return server, f"ws://127.0.0.1:{port}/v1/ws"
        except OSError:
            time.sleep(0.05)
    server.kill()
    sys.exit(f"autobahn: the server was not ready after {READY_S_MAX} s")


def run_suite(url, work_dir):
    shutil.rmtree(REPORT, ignore_errors=True)
    spec = {
        "outdir": str(REPORT),
        "servers": [{"agent": AGENT, "url": url}],
        "cases": ["*"],
        "exclude-cases": CASES_EXCLUDED,
        "exclude-agent-cases": {},
    }
    spec_path = pathlib.Path(work_dir) / "spec.json"
    spec_path.write_text(json.dumps(spec))
    log_path = CHECK / "autobahn.log"
    with open(log_path, "w") as log:
        subprocess.run(
            [VENV / "bin/wstest", "-m", "fuzzingclient", "-s", spec_path],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=work_dir,
            env=dict(os.environ, PYTHONWARNINGS="ignore"),
            timeout=SUITE_S_MAX,
        )


def verdict():
    """Prints the counts and every case that is not as it must be; returns whether all are."""
    try:
        cases = json.loads((REPORT / "index.json").read_text())[AGENT]
    except (OSError, KeyError, ValueError) as error:
        print(f"autobahn: no report ({error})")
        return False
    counts, wrong = {}, []
    for case, result in cases.items():
        behavior, closing = result["behavior"], result["behaviorClose"]
        counts[behavior] = counts.get(behavior, 0) + 1
        allowed = {"OK", "INFORMATIONAL"} if case in CASES_INFORMATIONAL else {"OK"}
        if behavior not in allowed or closing not in allowed:
            wrong.append((case, behavior, closing))
    wrong.sort(key=lambda row: [int(part) for part in row[0].split(".")])
    for case, behavior, closing in wrong[:20]:
        print(f"autobahn: case {case}: {behavior}, closing {closing}")
    if len(wrong) > 20:
        print(f"autobahn: and {len(wrong) - 20} more")
    told = ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
    print(f"autobahn: {len(cases)} of {CASES_EXPECTED} cases: {told or 'none'}; {len(wrong)} wrong")
    return len(cases) == CASES_EXPECTED and not wrong


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary", nargs="?", help="the echo build of caffis-chat")
    arguments.add_argument("--url", help="test this server instead of starting one")
    arguments.add_argument("--install-only", action="store_true")
    options = arguments.parse_args()
    install()
    if options.install_only:
        return
    if not (options.binary or options.url):
        arguments.error("a binary or --url is needed")
    with tempfile.TemporaryDirectory(prefix="caffis-autobahn-") as work_dir:
        server, url = None, options.url
        if not url:
            server, url = start_server(os.path.abspath(options.binary), f"{work_dir}/data")
        try:
            run_suite(url, work_dir)
            alive = server is None or server.poll() is None
        except subprocess.TimeoutExpired:
            print(f"autobahn: the suite did not end within {SUITE_S_MAX} s")
            alive = False
        finally:
            if server is not None and server.poll() is None:
                server.send_signal(signal.SIGTERM)
                try:
                    server.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    server.kill()
    if not alive:
        print("autobahn: the server did not live to the end")
    sys.exit(0 if verdict() and alive else 1)


if __name__ == "__main__":
    main()
