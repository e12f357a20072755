"""The long run of schemathesis against a running server, in rounds that differ by their seed.

`.venv/bin/python tests/service/contract_run.py --url http://127.0.0.1:8000 --cases 20000`. One long round would be
slower: what is generated repeats itself the more, the longer it goes on. Status 0 if all cases passed; the last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

CONFIG = Path(__file__).with_name("schemathesis.toml").resolve()
COUNTS = re.compile(r"^ *(\d+) generated, (\d+) passed|^ *(\d+) generated", re.MULTILINE)


def command(url: str, seed: int, examples: int, phases: str) -> list[str]:
    """One round of schemathesis."""
    return [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{url}/openapi.json"),
        *("--phases", phases, "--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure"),
        *("--suppress-health-check", "all", "--warnings", "off", "--no-color"),
    ]


def one_round(url: str, seed: int, examples: int = 40) -> tuple[int, int, str]:
    """How many cases were generated, how many of them passed, and what was printed."""
    phases = "examples,coverage,fuzzing,stateful" if seed == 1 else "fuzzing,stateful"
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            command(url, seed, examples, phases),
            cwd=folder,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    found = COUNTS.search(ended.stdout)
    if found is None:
        raise SystemExit(f"schemathesis did not run:\n{ended.stdout}")
    generated = int(found[1] or found[3])
    return generated, int(found[2] or 0) if ended.returncode == 0 else 0, ended.stdout


def main() -> int:
    """Rounds until there were so many cases, some side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    begun, seed = time.monotonic(), 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        waiting: set[Future[tuple[int, int, str]]] = set()
        while waiting or counts["generated"] < asked.cases:
            while len(waiting) < asked.jobs and counts["generated"] < asked.cases:
                seed += 1
                waiting.add(pool.submit(one_round, asked.url, seed))
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for generated, passed, printed in (each.result() for each in done):
                counts.update(rounds=1, generated=generated, failed_rounds=passed < generated)
                print(f"{counts['rounds']:4} rounds, {counts['generated']:6} cases", flush=True)
                if passed < generated:
                    print(printed, flush=True)
    print(json.dumps(dict(counts) | {"seconds": round(time.monotonic() - begun)}))
    return 1 if counts["failed_rounds"] else 0


if __name__ == "__main__":
    sys.exit(main())
