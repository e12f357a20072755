"""The life of a call, without its waiting: the bytes of each try, what an answer means, whether to try again."""

from __future__ import annotations

import gzip
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic
from urllib.parse import quote, urlsplit

from service.client.answers import Result, read_error
from service.client.errors import AugurError, DeadlineExceededError, InvalidInputError, by_status
from service.client.requests import Body, Call

# The wait before the first further try is up to this, before each one after it up to twice as long.
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
# Smaller bodies fit a packet as they are.
COMPRESSED_FROM_BYTES = 1024
INVISIBLE = re.compile(r"[^!-~]")


@dataclass(frozen=True, slots=True)
class Request:
    """What goes over the wire."""

    method: str
    target: str  # path and query
    headers: Mapping[str, str]
    content: bytes
    deadline: float  # of `time.monotonic`


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Settings:
    """What all calls of a client share; both clients explain the fields.

    Raises:
        ValueError: one breaks its rule. A key is not repeated.
    """

    url: str
    api_key: str | None
    timeout: float
    retries: int
    compress: bool

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if "@" in parts.netloc:
            raise ValueError("url: no user and no password; a key goes into api_key")
        parts.port  # noqa: B018, raises ValueError
        known = parts.scheme in ("http", "https") and parts.hostname and not INVISIBLE.search(self.url)
        if not known or parts.query or parts.fragment:
            rule = "http:// or https://, a host, and at most a port and a path, in visible ASCII"
            raise ValueError(f"url={self.url!r}: {rule}")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise ValueError("api_key: printable ASCII characters")
        if self.retries < 0:
            raise ValueError(f"retries={self.retries}: 0 or more")
        check_timeout(self.timeout)

    @property
    def prefix(self) -> str:
        """The path under which the API is."""
        return urlsplit(self.url).path.rstrip("/")


def check_timeout(seconds: float) -> None:
    """ValueError for what is no time to wait."""
    if not 0 < seconds < 1e6:
        raise ValueError(f"timeout={seconds}: seconds, more than 0")


class Exchange(Generic[Result]):
    """A call from its beginning to its result; `timeout` seconds bound all of it."""

    def __init__(self, call: Call[Result], settings: Settings, timeout: float | None = None) -> None:
        seconds = settings.timeout if timeout is None else timeout
        check_timeout(seconds)
        self._call, self._settings = call, settings
        self._deadline = time.monotonic() + seconds
        self._tries = 0

    def request(self) -> Request:
        """What to send now; the server is told how long it has.

        Raises:
            DeadlineExceededError: no time is left.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError("no time left to send the request", code="deadline_exceeded")
        self._tries += 1
        headers, content = self._headers(), b""
        if self._call.body is not None:
            content = _as_json(self._call.body(max(1, int(left * 1000))))
            headers["content-type"] = "application/json"
            if self._settings.compress and len(content) >= COMPRESSED_FROM_BYTES:
                content = gzip.compress(content, compresslevel=1)
                headers["content-encoding"] = "gzip"
        return Request(self._call.method, self._settings.prefix + self._call.path, headers, content, self._deadline)

    def read(self, answer: Answer) -> Result:
        """The result; raises AugurError where there is none."""
        if answer.status == 200:
            return self._call.read(answer.content)
        detail = read_error(answer.status, answer.content)
        raise by_status(answer.status)(
            detail.message,
            status=answer.status,
            code=detail.code,
            field=detail.field,
            request_id=answer.headers.get("x-request-id"),
            retry_after=_seconds(answer.headers.get("retry-after")),
        )

    def pause_after(self, error: AugurError) -> float:
        """Seconds until the next try; raises `error` where there is none to be made."""
        if not error.retryable or not self._call.patient or self._tries > self._settings.retries:
            raise error
        if error.may_have_acted and not self._call.repeatable:
            raise error
        pause = backoff(self._tries, error.retry_after, random.random())
        if time.monotonic() + pause >= self._deadline:
            raise error
        return pause

    def _headers(self) -> dict[str, str]:
        headers = {"user-agent": "augur-client"}
        if self._settings.api_key is not None:
            headers["authorization"] = f"Bearer {self._settings.api_key}"
        if self._call.user_id is not None:
            headers["x-user-id"] = _header(self._call.user_id)
        return headers


def backoff(tries: int, retry_after: float | None, chance: float) -> float:
    """Seconds to wait after so many tries.

    What the server asks for, and on top of it a random part, so that all who were refused at once do not come back at
    once; `chance` is from 0 to 1.
    """
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 16))
    return (retry_after or 0.0) + chance * longest


def _as_json(body: Body) -> bytes:
    """ASCII: text that UTF-8 cannot carry goes as escapes, for the server to refuse by its rule."""
    try:
        return json.dumps(body, separators=(",", ":")).encode()
    except TypeError as error:
        raise InvalidInputError(f"the request cannot be written as JSON: {error}") from None


def _seconds(retry_after: str | None) -> float | None:
    """Of `Retry-After`; its other form, a date, wants clocks that agree, and is left alone."""
    return float(retry_after) if retry_after is not None and retry_after.isascii() and retry_after.isdigit() else None


def _header(user_id: str) -> str:
    """A user's id where only visible ASCII can stand; the plain ones as every other client has them."""
    plain = user_id.isascii() and user_id.isprintable() and " " not in user_id
    return user_id if plain else quote(user_id, safe="", errors="surrogatepass")
