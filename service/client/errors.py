"""What a call can end with besides its result: one tree, by what the caller can do about it."""

from __future__ import annotations


class AugurError(Exception):
    """A call without a result.

    Attributes:
        message: what is wrong and the rule it breaks, for a person.
        status: the server's HTTP status; None where the error arose on this side.
        code: the server's word for it, as `queue_full`; "" where there is none.
        field: the part of the request it is about, as `events[3].timestamp_ms`.
        request_id: under which the server's log has the request.
        retry_after: seconds after which the server wants to be asked again.
        may_have_acted: whether the server may have done what was asked, or a part of it.
    """

    retryable = False
    acts = False  # whether an answer of this kind leaves open what was done

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        field: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        may_have_acted: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.code, self.field = message, status, code, field
        self.request_id, self.retry_after = request_id, retry_after
        self.may_have_acted = self.acts if may_have_acted is None else may_have_acted


class InvalidInputError(AugurError):
    """The request breaks a rule, and would again: 422, and every 4xx that has no class of its own."""


class UnauthorizedError(AugurError):
    """401: no key, or one that is not known."""


class ForbiddenError(AugurError):
    """403: a key without the right to this."""


class NotFoundError(AugurError):
    """404: no such model, or no such route."""


class QueueFullError(AugurError):
    """429: refused for want of room, with nothing done."""

    retryable = True


class UnavailableError(AugurError):
    """503: the server starts or stops, or its store does not answer; some of a request's events may be stored."""

    retryable = acts = True


class DeadlineExceededError(AugurError):
    """The call's time is over, be it that the server says so (504) or that this side did not wait longer."""

    acts = True


class UnreachableError(AugurError):
    """No connection, or one that broke before the answer was whole."""

    retryable = acts = True


class AnswerError(AugurError):
    """An answer that is not one of Augur's: of something in between, or of a server that failed."""

    acts = True


BY_STATUS = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    429: QueueFullError,
    503: UnavailableError,
    504: DeadlineExceededError,
}


def by_status(status: int) -> type[AugurError]:
    """The class of an answer that is no success."""
    return BY_STATUS.get(status) or (InvalidInputError if 400 <= status < 500 else AnswerError)
