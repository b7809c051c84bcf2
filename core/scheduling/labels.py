"""Labels of nodes, and the rules by which work chooses nodes. Pure.

A label is a key and a value, both in the syntax of Kubernetes. A `Condition` is about one key: its value is one of
some, or it has any value at all, or the opposite. A `NodeRule` is a list of alternatives, each a list of conditions
that all hold; what users write (label selectors, their fallbacks, scheduling strategies) comes to one of these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: The label that every node has: its id in hexadecimal.
NODE_ID = "ray.io/node-id"

_WORD = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_VALUE = re.compile(_WORD)
_KEY = re.compile(rf"(?:(?=.{{1,253}}/){_WORD}(?:\.{_WORD})*/)?{_WORD}")
_SELECTOR = re.compile(rf"(!?)(?:in\(({_WORD}(?:, ?{_WORD})*)\)|({_WORD}))")
_SYNTAX = "letters, digits, '-', '_' and '.', at most 63, the first and the last a letter or digit"


@dataclass(frozen=True, slots=True)
class Condition:
    """About the label `key`. values: it has one of them; None: it is there. negated: the opposite."""

    key: str
    values: tuple[str, ...] | None
    negated: bool = False

    def holds(self, labels: Mapping[str, str]) -> bool:
        found = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return found != self.negated

    def describe(self) -> str:
        """``zone in (a, b)``, ``zone not in (a)``, ``zone``, ``no zone``."""
        if self.values is None:
            return f"no {self.key}" if self.negated else self.key
        return f"{self.key}{' not' if self.negated else ''} in ({', '.join(self.values)})"


@dataclass(frozen=True, slots=True)
class NodeRule:
    """Which nodes will do: those for which all conditions of one of the alternatives hold."""

    alternatives: tuple[tuple[Condition, ...], ...]

    def describe(self) -> str:
        """``zone in (a, b), kind or zone in (c)``."""
        return " or ".join(", ".join(condition.describe() for condition in one) for one in self.alternatives)

    def mismatch(self, labels: Mapping[str, str]) -> str:
        """Why a node with these labels will not do; empty if it will."""
        if any(all(condition.holds(labels) for condition in one) for one in self.alternatives):
            return ""
        has = ", ".join(f"{key}={value}" for key, value in labels.items())
        return f"it needs a node with label {self.describe()}; the only node has {has}"


def check_labels(labels: object) -> dict[str, str]:
    """The labels that ``init`` is given.

    Raises:
      TypeError, ValueError: a key or a value is not what a label may be.
    """
    if not isinstance(labels, dict):
        raise TypeError(f"labels must be a dict of strings, not {type(labels).__name__} {labels!r}")
    for key, value in labels.items():
        _check_key(key)
        if not isinstance(value, str):
            raise TypeError(f"the value of label {key!r} must be a string, not {type(value).__name__} {value!r}")
        if value and not _VALUE.fullmatch(value):
            raise ValueError(f"{value!r} cannot be the value of label {key!r}: {_SYNTAX}")
        if key == NODE_ID:
            raise ValueError(f"label {key!r} is set by the runtime: leave it out")
    return dict(labels)


def parse_selector(selector: object, option: str = "label_selector") -> tuple[Condition, ...]:
    """``{"zone": "in(a, b)", "kind": "!spot"}``: all of it holds.

    Raises:
      TypeError: it is no dict of strings.
      ValueError: a key or a value is in the wrong syntax.
    """
    if not isinstance(selector, dict):
        raise TypeError(f"{option} must be a dict of labels, not {type(selector).__name__} {selector!r}")
    return tuple(_parse_condition(key, value, option) for key, value in selector.items())


def parse_fallbacks(strategies: object) -> list[tuple[Condition, ...]]:
    """The option ``fallback_strategy``: a list of ``{"label_selector": {...}}``, tried in order.

    Raises:
      TypeError, ValueError: it is something else.
    """
    if not isinstance(strategies, list):
        raise TypeError(f"fallback_strategy must be a list of dicts, not {type(strategies).__name__} {strategies!r}")
    found = []
    for strategy in strategies:
        if not isinstance(strategy, dict) or not strategy:
            raise ValueError(f"an element of fallback_strategy is a dict that is not empty, not {strategy!r}")
        unknown = sorted(set(strategy) - {"label_selector"})
        if unknown:
            raise ValueError(f"fallback_strategy knows only 'label_selector', not {', '.join(map(repr, unknown))}")
        found.append(parse_selector(strategy["label_selector"]))
    return found


def rule_of(alternatives: Sequence[tuple[Condition, ...]]) -> NodeRule | None:
    """The rule; None if every node will do."""
    return None if not all(alternatives) or not alternatives else NodeRule(tuple(alternatives))


def _parse_condition(key: Any, value: Any, option: str) -> Condition:
    _check_key(key)
    if not isinstance(value, str):
        raise TypeError(f"{option}[{key!r}] must be a string, not {type(value).__name__} {value!r}")
    if not value:
        return Condition(key, ("",))
    found = _SELECTOR.fullmatch(value)
    if found is None:
        raise ValueError(
            f"{option}[{key!r}] cannot be {value!r}: it is a value, 'in(value, value)', or one of these after '!'; "
            f"a value has {_SYNTAX}"
        )
    negation, several, one = found.groups()
    values = tuple(part.strip() for part in several.split(",")) if several else (one,)
    return Condition(key, values, negated=bool(negation))


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise TypeError(f"the key of a label must be a string, not {type(key).__name__} {key!r}")
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} cannot be the key of a label: {_SYNTAX}; before it a domain and '/', if need be")
