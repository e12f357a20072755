"""Loads the histories of a data set into a store: `python -m service.seed --store URL --data ADAPTER:PATH`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from model.data import OF_IMPRESSIONS, OF_SEQUENCES, open_data
from model.data.dataset import DataError, DataSet
from service.seeding import sequences
from service.settings import ConfigError, Settings
from service.stores import BehaviorStore, StoreError, open_store, redact
from service.stores.records import Records

CHUNK_USERS = 500
CHUNKS_AT_ONCE = 4

EPILOG = f"""\
data sets: {", ".join([*OF_IMPRESSIONS, *OF_SEQUENCES])}; canonical is the format for one's own logs.

Users who are in the store already are kept as they are, so that a load that was broken off is gone on with by running
it again, and a store that is in use loses nothing. Of each history the most recent AUGUR_WINDOW behaviours are stored,
for AUGUR_TTL_SECONDS; give these the values that the servers have.

exit status: 0 all is there, 1 the store failed on the way, 2 something that was asked for cannot be used.

  python -m service.seed --store redis://127.0.0.1:6379/0 --data kuairand:data/kuairand_pure
  python -m service.seed --store redis+cluster://10.0.0.1:6379,10.0.0.2:6379 --data canonical:my_logs --replace
"""


@dataclass(slots=True)
class Load:
    """How far a load has come."""

    users: int = 0  # in the store, by this load or from before
    stored: int = 0  # by this load
    seconds: float = 0.0


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Loads; returns the exit status."""
    asked = _parser().parse_args(arguments)
    load = Load()
    try:
        settings = _settings(asked.store, environment)
        store, data = open_store(settings), open_data(asked.data)
        asyncio.run(_run(store, data, asked.replace, load))
    except (ConfigError, DataError) as error:
        return _say(f"{error}", 2)
    except StoreError as error:
        return _say(f"{redact(settings.store)}: {error}; {load.stored} users were stored, run it again to go on", 1)
    except KeyboardInterrupt:
        return _say(f"interrupted; {load.stored} users were stored, run it again to go on", 130)
    print(
        f"{redact(settings.store)}: {load.stored} users stored, {load.users - load.stored} kept as they were, "
        f"in {load.seconds:.1f} s ({load.users / max(load.seconds, 1e-9):.0f} users/s)"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service.seed",
        description="Loads the histories of a data set into a behaviour store.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", metavar="URL", help="where to; AUGUR_STORE, if not said")
    parser.add_argument("--data", metavar="ADAPTER:PATH", required=True, help="the data set")
    parser.add_argument("--replace", action="store_true", help="overwrite users who are in the store already")
    return parser


def _settings(store: str | None, environment: Mapping[str, str]) -> Settings:
    settings = Settings.from_environment({**environment, **({} if store is None else {"AUGUR_STORE": store})})
    if settings.store == "memory://":
        raise ConfigError("AUGUR_STORE='memory://': a store that outlives this process, such as redis://HOST:PORT/DB")
    return settings


async def _run(store: BehaviorStore, data: DataSet, replace: bool, load: Load) -> None:
    try:
        await store.ping()
        start = time.monotonic()
        total = int(np.count_nonzero(np.diff(data.behaviors.offsets)))
        with tqdm(total=total, unit=" users", disable=None) as bar:
            await load_all(store, sequences(data), replace, load, bar)
        load.seconds = time.monotonic() - start
    finally:
        await store.close()


async def load_all(
    store: BehaviorStore, rows: Iterator[tuple[str, Records]], replace: bool, load: Load, bar: Any
) -> None:
    """Stores all sequences, some chunks at a time.

    Raises:
        StoreError: the store failed; `load` says what it has.
    """

    async def one(chunk: list[tuple[str, Records]]) -> None:
        stored = await store.seed(chunk, replace=replace)
        load.stored += stored
        load.users += len(chunk)
        bar.update(len(chunk))

    pending: set[asyncio.Task[None]] = set()
    try:
        while chunk := list(islice(rows, CHUNK_USERS)):
            pending.add(asyncio.create_task(one(chunk)))
            if len(pending) == CHUNKS_AT_ONCE:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        await asyncio.gather(*pending)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _say(wrong: str, status: int) -> int:
    print(f"augur: {wrong}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
