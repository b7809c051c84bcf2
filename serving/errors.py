"""Everything that can go wrong with a request, as those see it who made it.

    ServingError
     |- BadRequest         400  bad_request         the request cannot be read, or contradicts itself
     |- Unauthorized       401  unauthorized        no token, or a wrong one
     |- Forbidden          403  forbidden           Host or Origin is not one that is served
     |- PolicyNotFound     404  policy_not_found    no policy of that name, or no such version of it
     |- EpisodeNotFound    404  episode_not_found   no episode of that name was started here
     |- RouteNotFound      404  route_not_found     HTTP: no such path
     |- MethodNotAllowed   405  method_not_allowed  HTTP: the path is there, the method is not
     |- EpisodeOver        409  episode_over        the episode has ended, or was cut
     |- OutOfStep          409  out_of_step         the episode stands at another step, or this one was told otherwise
     |- TooLarge           413  too_large           more bytes than are accepted
     |- UnsupportedForm    415  unsupported_form    HTTP: a content type that is not spoken here
     |- BadObservation     422  bad_observation     read, but it does not fit the policy: shape, dtype, NaN, mask, state
     |- PolicyFailed       500  policy_failed       the policy itself raised; the request was right
     |- Overloaded         503  overloaded          the queue is full; the request was not begun
     |- Unready            503  unready             no policy yet, or leaving; the request was not begun
     |- TimedOut           504  timed_out           not answered within the time that the request gave itself
     `- Unreachable         -   unreachable         client only: no server answered in time

One of these is what a handle call raises, what HTTP answers as ``{"error": {"code", "message", "field"}}`` with the
status above, and what a client makes of that answer again. The same request can succeed later only after Overloaded,
Unready, Unreachable and, with luck, TimedOut: those have ``can_retry``. All are made of a message and keyword
attributes, so they survive pickle.
"""

# ruff: noqa: N818 - they read as what they say, in `except` as in an answer
from __future__ import annotations

from typing import Any, ClassVar


class ServingError(Exception):
    """A request was not answered with actions.

    Attributes:
      field: The part of the request that is wrong, as a path: "observations.camera", "timeout_s"; None where it is
        none in particular.
    """

    status: ClassVar[int]  #: of the HTTP answer
    code: ClassVar[str]  #: for programs; the message is for people
    can_retry: bool = False  #: whether the same request may succeed later

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def to_json(self) -> dict[str, Any]:
        """The body of the HTTP answer; those that say when to come back have ``retry_after_s``, too."""
        told: dict[str, Any] = {"code": self.code, "message": self.message, "field": self.field}
        if isinstance(self, Overloaded | Unready):
            told["retry_after_s"] = self.retry_after_s
        return {"error": told}


class BadRequest(ServingError):
    """The request cannot be read, or contradicts itself. Not when it reads well and does not fit the policy."""

    status, code = 400, "bad_request"


class Unauthorized(ServingError):
    """The token is missing or wrong."""

    status, code = 401, "unauthorized"


class Forbidden(ServingError):
    """The Host or the Origin of the request is none that is served: a page of somebody else may have sent it."""

    status, code = 403, "forbidden"


class PolicyNotFound(ServingError):
    """There is no policy of that name, or no such version of it."""

    status, code = 404, "policy_not_found"


class EpisodeNotFound(ServingError):
    """No episode of that name was started here, or the server was started again since: begin another one."""

    status, code = 404, "episode_not_found"


class EpisodeOver(ServingError):
    """The episode has ended, or was cut because nothing was heard of it for so long."""

    status, code = 409, "episode_over"


class OutOfStep(ServingError):
    """The episode stands at another step than the request; or the same step was told before, and otherwise."""

    status, code = 409, "out_of_step"


class RouteNotFound(ServingError):
    """Nothing is served at this path."""

    status, code = 404, "route_not_found"


class MethodNotAllowed(ServingError):
    """The path is served, but not with this method.

    Attributes:
      allowed: The method that is.
    """

    status, code = 405, "method_not_allowed"

    def __init__(self, message: str, *, allowed: str = "GET", field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.allowed = allowed


class TooLarge(ServingError):
    """More bytes than are accepted."""

    status, code = 413, "too_large"


class UnsupportedForm(ServingError):
    """The body has a content type that is not read here."""

    status, code = 415, "unsupported_form"


class BadObservation(ServingError):
    """The request reads well and does not fit the policy: the shape or the dtype of an observation, numbers that are
    not finite, choices that there are not, a mask that allows nothing, a state of another size.
    """

    status, code = 422, "bad_observation"


class PolicyFailed(ServingError):
    """The policy itself raised while it acted. The request was right; the server's log has the cause."""

    status, code = 500, "policy_failed"


class Overloaded(ServingError):
    """The queue is full. The request was not begun.

    Attributes:
      retry_after_s: When it may be worth another try.
    """

    status, code = 503, "overloaded"
    can_retry = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_after_s = retry_after_s


class Unready(ServingError):
    """There is no policy to act yet, or the server is leaving. The request was not begun.

    Attributes:
      retry_after_s: When it may be worth another try.
    """

    status, code = 503, "unready"
    can_retry = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_after_s = retry_after_s


class TimedOut(ServingError):
    """The answer did not come within the time that the request, or the server, gave it."""

    status, code = 504, "timed_out"
    can_retry = True


class Unreachable(ServingError):
    """No server answered within the client's deadline: refused, lost, or not speaking HTTP. Raised by clients only.

    Attributes:
      can_retry: False where the request may have been acted on and must not be acted on twice.
    """

    status, code = 503, "unreachable"

    def __init__(self, message: str, *, can_retry: bool = True, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.can_retry = can_retry


def failure(status: int, answer: Any) -> ServingError:
    """What an HTTP answer that is no success says.

    Args:
      status: Of the answer.
      answer: Its body as JSON; None if it is none, as when something between client and server answers.
    """
    told = answer.get("error") if isinstance(answer, dict) else None
    kind = BY_CODE.get(str(told.get("code"))) if isinstance(told, dict) else None
    if kind is None or not isinstance(told, dict):
        if status >= 500:
            return Unreachable(f"something that is no policy server answered {status}")
        return BadRequest(f"something that is no policy server answered {status}")
    error = kind(str(told.get("message")), field=told.get("field"))
    if isinstance(error, Overloaded | Unready) and isinstance(told.get("retry_after_s"), int | float):
        error.retry_after_s = float(told["retry_after_s"])
    return error


#: Every kind of failure that a server answers with, by its code.
BY_CODE: dict[str, type[ServingError]] = {
    kind.code: kind for kind in ServingError.__subclasses__() if kind is not Unreachable
}
