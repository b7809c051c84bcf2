"""One exchange of a client with a server, as values: what is sent where, and what an answer means. Pure; both clients
are shells around it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np

from . import episode_wire, errors, forms, http_access, wire
from .episode_requests import EpisodeEnd, EpisodeStep, StartEpisode
from .requests import ActReply, ActRequest, PolicyInfo
from .spaces import ONLY

if TYPE_CHECKING:
    from .requests import ActOptions


@dataclass(frozen=True)
class Address:
    """Where a server is."""

    is_tls: bool
    host: str
    port: int
    prefix: str  #: path in front of all others, "" or as "/policies"

    @classmethod
    def of(cls, url: str) -> Address:
        """Where a URL leads.

        Raises:
          ValueError: it is no http or https URL with a host.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is no address of a server, as http://127.0.0.1:8000 is")
        is_tls = parts.scheme == "https"
        return cls(is_tls, parts.hostname, parts.port or (443 if is_tls else 80), parts.path.rstrip("/"))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{self.prefix}"


@dataclass(frozen=True, kw_only=True)
class Sending:
    """What is sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None = None
    can_repeat: bool = True  #: whether being acted on twice does no harm


@dataclass(frozen=True)
class Answer:
    """What comes back."""

    status: int
    form: str | None  #: content type
    body: bytes


class Exchange:
    """What is sent to one server.

    Args:
      url: Of the server.
      token: Its token, or the file that holds it.

    Raises:
      ValueError: the URL leads nowhere, or the file holds no token.
    """

    def __init__(self, url: str, token: str | Path) -> None:
        self.address = Address.of(url)
        self._token_file = token if isinstance(token, Path) else None
        self._take(http_access.read_token(token) if isinstance(token, Path) else token)

    def _take(self, token: str) -> None:
        self._headers = {"Authorization": f"Bearer {token}"}
        self._acting_headers = {**self._headers, "Content-Type": wire.TENSOR_FORM}

    def has_newer_token(self, sent: Sending, error: errors.ServingError) -> bool:
        """Whether what is made from now on has another token than what was sent: a server that was started again may
        have written a new one into the file.

        Args:
          sent: What was not answered.
          error: Why not; the file is looked at where the token was wrong, and only then.
        """
        if self._token_file is None or not isinstance(error, errors.Unauthorized):
            return False
        try:
            self._take(http_access.read_token(self._token_file))
        except (OSError, ValueError):
            return False  # what the server said tells more
        return sent.headers not in (self._headers, self._acting_headers)

    def acting(
        self,
        policy: str,
        observations: np.ndarray | Mapping[str, np.ndarray],
        timeout_s: float,
        *,
        options: ActOptions,
    ) -> Sending:
        """What asks for actions.

        Args:
          policy: "name", or "name:version".
          observations: Columns [N, *shape] by name; the array alone where the space is not nested.
          timeout_s: What is left of the time for an answer: for who has gone the server need not act.
          options: Fields of ``ActRequest``.
        """
        columns = dict(observations) if isinstance(observations, Mapping) else {ONLY: observations}
        request = ActRequest(
            observations={name: np.asarray(column) for name, column in columns.items()},
            timeout_s=max(timeout_s, 1e-3),
            **options,
        )
        path = f"{self.address.prefix}/v1/policies/{quote(policy, safe=':')}/actions"
        body = wire.write_tensor_request(request)
        can_repeat = request.sessions is None
        return Sending(method="POST", path=path, headers=self._acting_headers, body=body, can_repeat=can_repeat)

    def posting(self, path: str, asking: StartEpisode | EpisodeStep | EpisodeEnd) -> Sending:
        """What tells of an episode; it may be sent as often as one likes."""
        body = episode_wire.write(asking)
        return Sending(method="POST", path=f"{self.address.prefix}{path}", headers=self._acting_headers, body=body)

    def listing(self) -> Sending:
        """What asks which policies there are."""
        return Sending(method="GET", path=f"{self.address.prefix}/v1/policies", headers=self._headers)

    def probing(self) -> Sending:
        """What asks whether requests are answered."""
        return Sending(method="GET", path=f"{self.address.prefix}/readyz", headers={})

    def unanswered(self, error: Exception, *, can_repeat: bool) -> errors.Unreachable:
        """That nobody answered, as an error to raise.

        Args:
          error: What happened instead.
          can_repeat: Whether the same request may be sent again.
        """
        happened = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        told = f"{self.address} did not answer ({happened})"
        if not can_repeat:
            told += ", and may have acted: sessions may be a step ahead"
        return errors.Unreachable(told, can_retry=can_repeat)


def good(answer: Answer) -> Answer:
    """The answer itself.

    Raises:
      ServingError: it is none: what the server says instead.
    """
    if answer.status != 200:
        raise _failure_of(answer)
    return answer


def reply_of(answer: Answer) -> ActReply:
    """The actions in an answer.

    Raises:
      ServingError: what the server says instead.
    """
    if answer.status == 200 and answer.form == wire.TENSOR_FORM:
        return wire.read_tensor_reply(answer.body)
    raise _failure_of(answer)


def told_by(answer: Answer, kind: type[episode_wire.Telling]) -> episode_wire.Telling:
    """What is said of an episode in an answer.

    Raises:
      ServingError: what the server says instead.
    """
    if answer.status == 200 and answer.form == wire.TENSOR_FORM:
        return episode_wire.read_reply(kind, answer.body)
    raise _failure_of(answer)


def policies_of(answer: Answer) -> list[PolicyInfo]:
    """The policies in an answer.

    Raises:
      ServingError: what the server says instead.
    """
    told = _json_of(answer.body)
    if answer.status != 200 or not isinstance(told, dict) or not isinstance(told.get("policies"), list):
        raise _failure_of(answer)
    return [forms.policy_info(info) for info in told["policies"]]


def _failure_of(answer: Answer) -> errors.ServingError:
    return errors.failure(answer.status, _json_of(answer.body))


def _json_of(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:  # something on the way answers in words of its own; `failure` says so
        return None
