"""The dataclasses that are told about policies, as JSON and back: what /v1/policies answers. Pure.

Every field becomes a key of the same name; tuples become lists. Requests and actions have forms of their own (wire.py).
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from .errors import BadRequest
from .requests import PolicyInfo, VersionInfo
from .spaces import LeafSpace, NestedSpace, Space

_ENCODE = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def encode(value: object) -> bytes:
    """Plain values as JSON.

    Raises:
      ValueError: a number is not finite.
    """
    return _ENCODE(value).encode()


def to_json(value: object) -> Any:
    """A dataclass, and what is in it, as plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_json(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return [to_json(part) for part in value]
    return value


def policy_info(values: Any) -> PolicyInfo:
    """The inverse of ``to_json``.

    Raises:
      BadRequest: this tells of no policy.
    """
    try:
        return PolicyInfo(
            **{
                **values,
                "versions": tuple(VersionInfo(**version) for version in values["versions"]),
                "observation_space": _space(values["observation_space"]),
                "action_space": _space(values["action_space"]),
                "traffic": {int(version): share for version, share in values["traffic"].items()},
            }
        )
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise BadRequest(f"this tells of no policy: {error!r}") from error


def _space(values: dict[str, Any]) -> Space:
    if "parts" in values:
        return NestedSpace(kind=values["kind"], parts={name: _space(part) for name, part in values["parts"].items()})
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return LeafSpace(**plain)
