"""A server whose answers and times are known: `python toy_server.py --port P --service-ms 2 ...`, or within a test.

One request after the other, each for its service time, as a queue with one server has it; `--stall-at` stops it once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Toy:
    """What it does, and what it saw."""

    service_ms: float = 0.0
    stall_at: int = 0  # the request that finds the stall, counted from 1; 0: none
    stall_ms: float = 0.0
    status: int = 200  # of every second score request
    wrong: bool = False  # one score too few
    silent: bool = False  # never answers scores
    close: bool = False  # after each answer
    hang_up: bool = False  # instead of an answer
    garbage: bool = False  # instead of HTTP
    timing: str = ""
    degraded: bool = False
    metrics: bool = False
    anonymous: bool = False  # no /v1/models
    deaf: bool = False  # takes no behaviours
    free_at: float = 0.0
    seen: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    connections: int = 0
    answered: int = 0  # scores
    batches: Counter[int] = field(default_factory=Counter)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                length = next((int(x[15:]) for x in lines if x.lower().startswith("content-length:")), 0)
                body = json.loads(await reader.readexactly(length)) if length else {}
                method, path, _ = lines[0].split(" ")
                self.seen.append((time.monotonic(), path, body))
                if not await self._answer(writer, method, path, body):
                    break
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, method: str, path: str, body: dict[str, Any]) -> bool:
        scored = path == "/v1/score"
        if scored:
            await self._work()
            if self.silent:
                return True
            if self.hang_up:
                return False
        if scored and self.garbage:
            writer.write(b"what?\r\n\r\n")
            return True
        status, answer = self._content(path, body)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        extra = f"server-timing: {self.timing}\r\n" if scored and self.timing else ""
        extra += "connection: close\r\n" if self.close else ""
        writer.write(f"HTTP/1.1 {status} X\r\n{extra}content-length: {len(text)}\r\n\r\n{text}".encode())
        return not self.close

    async def _work(self) -> None:
        scores = sum(path == "/v1/score" for _, path, _ in self.seen)
        stall = self.stall_ms if scores == self.stall_at else 0.0
        now = time.monotonic()
        self.free_at = max(now, self.free_at) + (self.service_ms + stall) / 1000
        self.batches[1 if scores % 2 else 8] += 1
        await asyncio.sleep(self.free_at - now)

    def _content(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/score":
            self.answered += 1
            scores = [0.5] * (len(body["item_ids"]) - self.wrong)
            answer = {"scores": scores, "degraded": "store_unavailable" if self.degraded else None}
            return (self.status if self.answered % 2 else 200), answer
        if path == "/v1/behaviors":
            return (503, {}) if self.deaf else (200, {"accepted": len(body["events"]), "duplicates": 0})
        if path == "/v1/models" and not self.anonymous:
            model = {"name": "toy", "version": "7", "context_fields": ["tab"], "actions": ["click"]}
            return 200, {"models": [model]}
        if path == "/metrics" and self.metrics:
            small, all_ = self.batches[1], sum(self.batches.values())
            lines = [f'augur_batch_candidates_bucket{{le="1"}} {small}', "# HELP none", "augur_other 1"]
            return 200, "\n".join([*lines, f'augur_batch_candidates_bucket{{le="+Inf"}} {all_}', ""])
        return (200, {"status": "ready"}) if path in ("/readyz", "/livez") else (404, {})


@contextmanager
def toy_server(**settings: Any) -> Iterator[tuple[Toy, str]]:
    """A toy in a thread of this process, and its address."""
    toy, loop = Toy(**settings), asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(toy.serve, "127.0.0.1", 0, backlog=1000))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield toy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:

        async def stop() -> None:
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0.01)  # for transports to be closed

        asyncio.run_coroutine_threadsafe(stop(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main() -> None:
    """A process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--service-ms", type=float, default=0.0)
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--timing", default="")
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--said", action="store_true", help="print where it listens")
    chosen = vars(parser.parse_args())
    port = chosen.pop("port")
    if chosen.pop("said"):
        print(f"serving http://127.0.0.1:{port}", flush=True)

    async def run() -> None:
        server = await asyncio.start_server(Toy(**chosen).serve, "127.0.0.1", port, backlog=1000)
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    main()
