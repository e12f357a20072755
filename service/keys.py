"""API keys: who may ask what. `python -m service.keys NAME` makes one.

Settings have the SHA-256 of a key alone, so that who reads them learns no key. A plain hash will do: a key is 256
random bits, which nobody can guess from it.
"""

from __future__ import annotations

import argparse
import hmac
import secrets
import sys
from collections.abc import Iterable, Sequence
from hashlib import sha256

from starlette.types import Scope

from service.errors import ForbiddenError, UnauthorizedError
from service.settings import Settings, key_pairs

# What an orchestrator asks, which has no key.
PROBES = frozenset(("/livez", "/readyz", "/startupz", "/v2/health/live", "/v2/health/ready"))

Pairs = Sequence[tuple[str, bytes]]  # names and hashes


class Keys:
    """The keys of a server. An admin key opens every route, a user's all but those that change the server."""

    def __init__(self, settings: Settings, pages: Iterable[str] = ()) -> None:
        """`pages` are paths that anyone may read, since there is nothing of users in them."""
        self._open = PROBES.union(pages)
        self.users = _hashed(key_pairs(settings.api_keys))
        self.admins = _hashed(key_pairs(settings.admin_keys))

    def check(self, scope: Scope) -> str | None:
        """The name of the key that a request came with; None where none is asked for.

        Raises:
            UnauthorizedError: no key, or one that is not known.
            ForbiddenError: a key without the right to this, or nobody has it.
        """
        path = scope["path"]
        admin = is_admin(scope["method"], path)
        if not admin and (not self.users or path in self._open):
            return None
        if admin and not self.admins and not self.users:
            raise ForbiddenError(_NO_ADMIN)
        digest = sha256(_presented(scope)).digest()
        user, administrator = _find(digest, self.users), _find(digest, self.admins)
        if user is None and administrator is None:
            raise UnauthorizedError("a known key is needed, as Authorization: Bearer KEY or X-API-Key: KEY")
        if admin and administrator is None:
            raise ForbiddenError("this takes an admin key (AUGUR_ADMIN_KEYS)" if self.admins else _NO_ADMIN)
        return administrator or user


_NO_ADMIN = "this takes an admin key, and the server has none (AUGUR_ADMIN_KEYS)"


def is_admin(method: str, path: str) -> bool:
    """Whether a request changes the server itself: its models."""
    return path.startswith(("/v1/models/", "/v2/repository/")) and method == "POST"


def _find(digest: bytes, pairs: Pairs) -> str | None:
    """The name of a key; every one is compared, so that time says nothing of which came near."""
    found = None
    for name, known in pairs:
        if hmac.compare_digest(digest, known):
            found = name
    return found


def _presented(scope: Scope) -> bytes:
    """The key of a request, nothing where there is none; a bearer's comes first."""
    key = b""
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return bytes(value[7:].strip())
        if name == b"x-api-key":
            key = value
    return key


def _hashed(pairs: Iterable[tuple[str, str]]) -> Pairs:
    return tuple((name, bytes.fromhex(digest)) for name, digest in pairs)


def make() -> tuple[str, str]:
    """A new key, and its hash."""
    key = "augur_" + secrets.token_urlsafe(32)
    return key, sha256(key.encode()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes a key and prints it, this once."""
    parser = argparse.ArgumentParser(prog="python -m service.keys", description="Makes an API key.")
    parser.add_argument("name", nargs="?", default="key", help="what logs call it: letters, digits, . _ -")
    name = parser.parse_args(arguments).name
    key, digest = make()
    try:
        key_pairs(f"{name}:{digest}")
    except ValueError as error:
        print(f"{name!r}: {error}", file=sys.stderr)
        return 2
    print(f"key, for the client, not shown again:           {key}")
    print(f"for AUGUR_API_KEYS or AUGUR_ADMIN_KEYS:          {name}:{digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
