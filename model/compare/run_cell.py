"""One training of a comparison in a process of its own: `python -m model.compare.run_cell model.train OPTIONS`.

It ends with the process that started it, however that one ends: its standard input, a pipe, is closed then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from model import distill, train
from model.cli import main

RUNS = {"model.train": train.run, "model.distill": distill.run}


def end_with_parent() -> None:
    """Ask this process to stop, as Ctrl-C would, when nobody holds the other end of its standard input any more."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    name = sys.argv.pop(1)
    threading.Thread(target=end_with_parent, daemon=True).start()
    main(RUNS[name])
