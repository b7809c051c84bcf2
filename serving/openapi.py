"""The OpenAPI document, generated from the types that requests, answers and policies are made of. Pure.

A field's type becomes its schema, and what it was ``told`` its description, so that neither can be forgotten. Arrays
are nested lists in JSON; their shapes depend on the policy, and /v1/policies tells them.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, Literal

import numpy as np

from . import episode_requests, errors, requests, wire
from .checking import MAX_TIMEOUT_S, SESSION

VERSION = "3.1.0"
Schema = dict[str, Any]

#: What JSON says of an array, of observations, and of actions; the types are numpy's.
_OWN_SCHEMAS: dict[str, Schema] = {
    "Array": {
        "description": "A number, or lists of numbers or booleans, nested to the depth that the shape has.",
        "anyOf": [
            {"type": ["number", "boolean"]},
            {"type": "array", "items": {"$ref": "#/components/schemas/Array"}},
        ],
    },
    "Columns": {
        "description": "Arrays by the names of the columns that the observation space has.",
        "type": "object",
        "additionalProperties": {"$ref": "#/components/schemas/Array"},
        "minProperties": 1,
    },
    "Action": {"description": "A number, or lists and objects of numbers, nested as the action space is."},
    "Error": {
        "description": "Why there is no answer.",
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "code": {"type": "string", "enum": sorted(errors.BY_CODE)},
                    "message": {"type": "string", "description": "For people"},
                    "field": {"type": ["string", "null"], "description": "The part of the request that is wrong"},
                    "retry_after_s": {"type": "number", "description": "With 503: when another try may be worth it"},
                },
                "required": ["code", "message", "field"],
            }
        },
        "required": ["error"],
    },
}  # fmt: skip
#: Fields whose JSON says more, or less, than their type.
_FIELDS: dict[str, Schema] = {
    "ActRequest.observations": {
        "anyOf": [
            {"$ref": "#/components/schemas/Array"},
            {"$ref": "#/components/schemas/Columns"},
        ]
    },
    "ActRequest.sessions": {
        "type": ["array", "null"],
        "items": {"type": "string", "pattern": f"^{SESSION.pattern}$"},
        "uniqueItems": True,
    },
    "ActRequest.timeout_s": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S},
    "EpisodeStep.observation": {
        "anyOf": [
            {"$ref": "#/components/schemas/Array"},
            {"$ref": "#/components/schemas/Columns"},
        ]
    },
    "EpisodeEnd.observation": {
        "anyOf": [
            {"type": "null"},
            {"$ref": "#/components/schemas/Array"},
            {"$ref": "#/components/schemas/Columns"},
        ]
    },
    "StartEpisode.episode": {"type": "string", "pattern": f"^{SESSION.pattern}$"},
    "EpisodeStep.step": {"type": "integer", "minimum": 0},
    "EpisodeEnd.step": {"type": "integer", "minimum": 0},
    "EpisodeStep.timeout_s": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S},
    "EpisodeEnd.timeout_s": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S},
    "StepReply.action": {"$ref": "#/components/schemas/Action"},
    "ActReply.actions": {"type": "array", "items": {"$ref": "#/components/schemas/Action"}},
}
#: What bodies are made of.
_ROOTS = (
    requests.ActRequest, requests.ActReply, requests.PolicyInfo, episode_requests.StartEpisode,
    episode_requests.EpisodeStarted, episode_requests.EpisodeStep, episode_requests.StepReply,
    episode_requests.EpisodeEnd, episode_requests.EpisodeEnded,
)  # fmt: skip
#: Answers of every route that needs a token, and of asking for actions, beside the good one.
_DOOR = (errors.Unauthorized, errors.Forbidden)
_ACTING = (
    errors.BadRequest, errors.PolicyNotFound, errors.TooLarge, errors.UnsupportedForm, errors.BadObservation,
    errors.PolicyFailed, errors.Overloaded, errors.TimedOut,
)  # fmt: skip
#: Of an episode that is begun, and of what follows in it.
_STARTING = (
    errors.BadRequest, errors.PolicyNotFound, errors.RouteNotFound, errors.EpisodeOver, errors.TooLarge,
    errors.UnsupportedForm, errors.Overloaded,
)  # fmt: skip
_PLAYING = (
    errors.BadRequest, errors.EpisodeNotFound, errors.RouteNotFound, errors.EpisodeOver, errors.OutOfStep,
    errors.TooLarge, errors.UnsupportedForm, errors.BadObservation, errors.PolicyFailed, errors.Overloaded,
    errors.TimedOut,
)  # fmt: skip


@functools.cache
def document() -> Schema:
    """The whole document. It is made once: the types do not change while a program runs."""
    return {
        "openapi": VERSION,
        "info": {
            "title": "Policies",
            "version": "1",
            "description": "Actions for observations. What is neither a probe nor this document takes a token.",
        },
        "paths": _paths(),
        "components": {
            "schemas": _OWN_SCHEMAS | _schemas(*_ROOTS),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }  # fmt: skip


def _paths() -> Schema:
    token: list[Schema] = [{"token": []}]
    policies: Schema = {"type": "object", "properties": {"policies": {"type": "array", "items": _ref("PolicyInfo")}}}
    policies["required"] = ["policies"]
    status = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "Name of a policy, or name:version",
        "schema": {"type": "string", "pattern": "^[^:]*(:[0-9]{1,18})?$"},
    }
    episode = name | {"description": "Name of an episode that was started", "schema": {"type": "string"}}
    acting = _post("act", "Actions for every row of observations", "ActRequest", "ActReply", _ACTING, name)
    starting = _post("startEpisode", "An episode begins", "StartEpisode", "EpisodeStarted", _STARTING)
    stepping = _post("stepEpisode", "What is seen, for an action", "EpisodeStep", "StepReply", _PLAYING, episode)
    ending = _post("endEpisode", "How an episode ended", "EpisodeEnd", "EpisodeEnded", _PLAYING, episode)
    return {
        "/v1/policies/{name}/actions": {"post": acting},
        "/v1/episodes": {"post": starting},
        "/v1/episodes/{name}/steps": {"post": stepping},
        "/v1/episodes/{name}/end": {"post": ending},
        "/v1/policies": {"get": _get("policies", "Every policy that is served", policies, _DOOR, security=token)},
        "/healthz": {"get": _get("health", "Whether the process is there", status, (errors.Forbidden,))},
        "/readyz": {
            "get": _get("readiness", "Whether requests are answered", status, (errors.Forbidden, errors.Unready))
        },
        "/metrics": {"get": _get("metrics", "Prometheus text", None, _DOOR, security=token)},
        "/openapi.json": {"get": _get("openapi", "This document", {"type": "object"}, (errors.Forbidden,))},
    }


def _post(
    operation: str,
    summary: str,
    asked: str,
    answered: str,
    failures: tuple[type[errors.ServingError], ...],
    *parameters: Schema,
) -> Schema:
    tensors = {"schema": {"type": "string", "format": "binary", "description": wire.__doc__}}
    return {
        "operationId": operation,
        "summary": summary,
        "security": [{"token": []}],
        "parameters": list(parameters),
        "requestBody": {
            "required": True,
            "content": {wire.JSON_FORM: {"schema": _ref(asked)}, wire.TENSOR_FORM: tensors},
        },
        "responses": {
            "200": {
                "description": "In the form of the request",
                "content": {wire.JSON_FORM: {"schema": _ref(answered)}, wire.TENSOR_FORM: tensors},
            },
            **_failures(*_DOOR, *failures),
        },
    }


def _get(
    operation: str,
    summary: str,
    schema: Schema | None,
    failures: tuple[type[errors.ServingError], ...],
    *,
    security: list[Schema] | None = None,
) -> Schema:
    content = {"text/plain": {"schema": {"type": "string"}}} if schema is None else {wire.JSON_FORM: {"schema": schema}}
    told: Schema = {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}, **_failures(*failures)},
    }
    return told | ({"security": security} if security else {})


def _failures(*kinds: type[errors.ServingError]) -> Schema:
    failures: Schema = {}
    for kind in sorted(kinds, key=lambda kind: kind.status):
        told = f"{kind.code}: {(kind.__doc__ or '').partition('.')[0].replace(chr(10), ' ')}"
        before = failures.get(str(kind.status))
        failures[str(kind.status)] = {
            "description": told if before is None else f"{before['description']}; {told}",
            "content": {wire.JSON_FORM: {"schema": _ref("Error")}},
        }
    return failures


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(*roots: type) -> dict[str, Schema]:
    """Schemas of these dataclasses and of all that their fields are made of, by name."""
    made: dict[str, Schema] = {}
    waiting = list(roots)
    while waiting:
        kind = waiting.pop()
        if kind.__name__ not in made:
            made[kind.__name__] = _schema_of_class(kind, waiting)
    return dict(sorted(made.items()))


def _schema_of_class(kind: type, found: list[type]) -> Schema:
    types_of_fields = typing.get_type_hints(kind)
    properties: Schema = {}
    required = []
    for item in dataclasses.fields(kind):
        own = _FIELDS.get(f"{kind.__name__}.{item.name}")
        schema = dict(own) if own else _schema_of(types_of_fields[item.name], found)
        properties[item.name] = schema | dict(item.metadata)
        has_default = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        if not has_default:
            required.append(item.name)
        elif isinstance(item.default, bool | int):
            properties[item.name]["default"] = item.default
    return {
        "description": " ".join((kind.__doc__ or "").split()),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


_PLAIN: dict[object, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    np.ndarray: _ref("Array"),
}


def _schema_of(kind: Any, found: list[type]) -> Schema:
    """The schema of a type; dataclasses that it names are added to ``found``.

    Raises:
      TypeError: a type that has none; only a field of a new kind makes that.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        found.append(kind)
        return _ref(kind.__name__)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema_of(argument, found) for argument in arguments]}
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _schema_of(arguments[0], found)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1], found)}
    raise TypeError(f"{kind} has no schema")
