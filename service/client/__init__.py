"""The Python client of the service: `AugurClient`, and `AsyncAugurClient` for asyncio; docs/client.md has the rules.

It shares no module with the server, and needs the packages of the extra `client` alone.

1. `requests` makes a `Call` of what was asked: a method, a path, a body, and how to read the answer.
2. `exchange` is the life of a call: its deadline, the bytes of each try, what an answer means, whether to try again.
3. `blocking` and `asynchronous` do the waiting, by way of `transport`, and nothing else.
"""

from service.client.answers import (
    Appended,
    Behaviors,
    Evolved,
    ExplainedItem,
    Explanation,
    Model,
    Models,
    RankedItem,
    Routes,
    Scores,
    Shadow,
    StoredEvent,
    UsedBehavior,
)
from service.client.asynchronous import AsyncAugurClient
from service.client.blocking import AugurClient
from service.client.errors import (
    AnswerError,
    AugurError,
    DeadlineExceededError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    QueueFullError,
    UnauthorizedError,
    UnavailableError,
    UnreachableError,
)
from service.client.requests import Event, ScoreRequest

__all__ = [
    "AnswerError",
    "Appended",
    "AsyncAugurClient",
    "AugurClient",
    "AugurError",
    "Behaviors",
    "DeadlineExceededError",
    "Event",
    "Evolved",
    "ExplainedItem",
    "Explanation",
    "ForbiddenError",
    "InvalidInputError",
    "Model",
    "Models",
    "NotFoundError",
    "QueueFullError",
    "RankedItem",
    "Routes",
    "ScoreRequest",
    "Scores",
    "Shadow",
    "StoredEvent",
    "UnauthorizedError",
    "UnavailableError",
    "UnreachableError",
    "UsedBehavior",
]
