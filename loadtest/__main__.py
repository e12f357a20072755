"""`python -m loadtest`: locust against a server of its own, or against any other; reports in a folder."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from loadtest.servers import ROOT, ServerError, end_on_term, own_server, wait_until_ready


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs once. Returns 0, 1 when a bound was broken or a server misbehaved, or 2 without locust."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description="Readers of a feed against a server. Further options are locust's and those of "
        "loadtest/locustfile.py: --p99-ms and --max-error-rate (the bounds), --speed, --spike, --history-length; or "
        "LOADTEST_P99_MS and so on in the environment.",
    )
    parser.add_argument("--url", help="of a server that runs already; it will keep the behaviours that are sent to it")
    parser.add_argument("--users", type=_count, default=50, help="readers at once, but for the spike (50)")
    parser.add_argument("--seconds", type=_count, default=120, help="how long (120)")
    parser.add_argument("--out", type=Path, default=Path("runs/loadtest"), help="folder of the reports (runs/loadtest)")
    chosen, further = parser.parse_known_args(arguments)
    url = (chosen.url or "").rstrip("/")
    if find_spec("locust") is None:
        print("loadtest: locust is not installed; pip install -e '.[loadtest]' has it", file=sys.stderr)
        return 2
    out = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    run = partial(run_locust, users=chosen.users, seconds=chosen.seconds, out=out, further=further)
    try:
        if url:
            wait_until_ready(url)
            return run(url)
        with own_server(out / "server.log") as own:
            return run(own.url)
    except ServerError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 1


def run_locust(url: str, users: int, seconds: int, out: Path, further: Sequence[str]) -> int:
    """Locust's exit status. It prints its table at the end and writes report.html and report_*.csv."""
    # In a process of its own, since it patches the standard library of the one that imports it.
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--host", url]
    command += ["--headless", "--only-summary", "--users", str(users), "--run-time", f"{seconds}s"]
    command += ["--stop-timeout", "10", "--loglevel", "WARNING"]
    command += ["--html", str(out / "report.html"), "--csv", str(out / "report"), *further]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    print(f"reports: {out}/report.html, report_*.csv")
    return status


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number, at least 1")
    return int(text)


if __name__ == "__main__":
    end_on_term()
    sys.exit(main())
