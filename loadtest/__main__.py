"""`python -m loadtest`: locust against a server of its own, or against any other; reports in a folder."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from loadtest.traffic import DATA

ROOT = Path(__file__).resolve().parents[1]
SERVER = (sys.executable, "-m", "service")
START_SECONDS = 120.0
READY_SECONDS = 10.0
STOP_SECONDS = 30.0


class ServerError(RuntimeError):
    """A server that did not start, or did not stop in order."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs once. Returns 0, 1 when an answer was wrong or a server misbehaved, or 2 without locust."""
    parser = argparse.ArgumentParser(prog="python -m loadtest", description="Readers of a feed against a server.")
    parser.add_argument("--url", help="of a server that runs already; it will keep the behaviours that are sent to it")
    parser.add_argument("--users", type=_count, default=4, help="readers at once (4)")
    parser.add_argument("--seconds", type=_count, default=30, help="how long (30)")
    parser.add_argument("--out", type=Path, default=Path("runs/loadtest"), help="folder of the reports (runs/loadtest)")
    chosen = parser.parse_args(arguments)
    url = (chosen.url or "").rstrip("/")
    if find_spec("locust") is None:
        print("loadtest: locust is not installed; pip install -e '.[loadtest]' has it", file=sys.stderr)
        return 2
    out = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    try:
        if url:
            wait_until_ready(url)
            return run_locust(url, chosen.users, chosen.seconds, out)
        with own_server(out / "server.log") as own:
            return run_locust(own, chosen.users, chosen.seconds, out)
    except ServerError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 1


def run_locust(url: str, users: int, seconds: int, out: Path) -> int:
    """Locust's exit status. It prints its table at the end and writes report.html and report_*.csv."""
    # In a process of its own, since it patches the standard library of the one that imports it.
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--host", url]
    command += ["--headless", "--only-summary", "--users", str(users), "--spawn-rate", str(users)]
    command += ["--run-time", f"{seconds}s", "--stop-timeout", "10", "--loglevel", "WARNING"]
    command += ["--html", str(out / "report.html"), "--csv", str(out / "report")]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    print(f"reports: {out}/report.html, report_*.csv")
    return status


@contextmanager
def own_server(log: Path, command: Sequence[str] = SERVER) -> Iterator[str]:
    """The address of a server that is ready, and is told to stop at the end.

    Settings come from the environment, as for any server, but for the address; without AUGUR_SEED it has the bundled
    users. Raises ServerError when it does not start, or does not end with status 0.
    """
    environment = {"AUGUR_SEED": f"kuairand:{DATA}"} | os.environ | {"AUGUR_HOST": "127.0.0.1", "AUGUR_PORT": "0"}
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield _address(server, log)
    finally:
        server.terminate()
        try:
            status: int | str = server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
            status = f"nothing in {STOP_SECONDS:g} s"
    if status:
        raise ServerError(f"the server answered SIGTERM with status {status}, not 0; see {log}")


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, once it is ready: it says so itself."""
    begin = time.monotonic()
    while not (said := re.search(r"^serving (http://\S+)", log.read_text(), re.MULTILINE)):
        if server.poll() is not None or time.monotonic() - begin > START_SECONDS:
            raise ServerError(f"the server did not start; it said:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
    wait_until_ready(said[1])
    return said[1]


def wait_until_ready(url: str) -> None:
    """Returns when /readyz answers 200. Raises ServerError when it does not in time, or `url` is none."""
    # No proxy of the environment is to stand between the two.
    opener = build_opener(ProxyHandler({}))
    begin = time.monotonic()
    while True:
        try:
            with opener.open(f"{url}/readyz", timeout=2):
                return
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) or time.monotonic() - begin > READY_SECONDS:
                raise ServerError(f"{url}/readyz: {error}") from None
        time.sleep(0.2)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number, at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
