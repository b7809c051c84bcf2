"""``shoal.util.metrics``: Counter, Gauge and Histogram, Ray's names and checks; and how to read them.

    requests = Counter("requests", description="served", tag_keys=("route",))
    requests.inc(tags={"route": "/"})
    print(prometheus_text())        # shoal_requests_total{route="/"} 1.0

Each process counts for itself, without a message; `snapshot` and `prometheus_text` ask all processes and add up. What
a killed worker had counted is known up to half a second before its end.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ..engines.current import running
from ..errors import SessionError
from ..runtime.questions import Question
from .measures import COUNTER, GAUGE, HISTOGRAM, MEASURES, Identity, Row, merge

__all__ = ["Counter", "Gauge", "Histogram", "MetricState", "prometheus_text", "snapshot"]

_NAME = re.compile(r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")


class Metric:
    """What the three kinds share."""

    _kind = ""

    def __init__(
        self,
        name: str,
        description: str = "",
        tag_keys: tuple[str, ...] | None = None,
        _boundaries: tuple[float, ...] = (),
    ) -> None:
        if not name:
            raise ValueError("a metric has a name; the one given is empty")
        tag_keys = tag_keys or ()
        if not isinstance(tag_keys, tuple):
            raise TypeError(f"tag_keys is a tuple of strings, not {type(tag_keys).__name__} {tag_keys!r}")
        for key in tag_keys:
            if not isinstance(key, str):
                raise TypeError(f"a tag key is a string, not {type(key).__name__} {key!r}")
        self._name = name
        self._description = description
        self._tag_keys = tag_keys
        self._default_tags: dict[str, str] = {}
        self._identity: Identity = (self._kind, name, tag_keys, _boundaries)
        self._is_kept = bool(_NAME.match(name))
        if self._is_kept:
            MEASURES.declare(self._identity, description)
        else:
            warnings.warn(
                f"{name!r} is no name for a metric, so nothing of it is recorded: "
                "letters, digits, _ and : are allowed, and no digit at the start",
                UserWarning,
                stacklevel=3,
            )

    def set_default_tags(self, default_tags: dict[str, str]) -> Any:
        """Tags for every value that is recorded without them; returns the metric itself.

        Raises:
          ValueError: a tag has no key in `tag_keys`.
          TypeError: a tag's value is no string.
        """
        for key in default_tags:
            if key not in self._tag_keys:
                raise ValueError(f"{self._name} has no tag key {key!r}; it has {', '.join(self._tag_keys) or 'none'}")
        _check_tags(default_tags)
        self._default_tags = default_tags
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _record(self, value: float, tags: Mapping[str, str] | None) -> None:
        _check_tags(tags or {})
        given = {**self._default_tags, **(tags or {})}
        missing = [key for key in self._tag_keys if key not in given]
        if missing:
            raise ValueError(f"missing value for tag key(s): {', '.join(missing)}")
        if self._is_kept:
            MEASURES.record(self._identity, tuple([given[key] for key in self._tag_keys]), float(value))


class Counter(Metric):
    """A number that only grows: requests served, rows read."""

    _kind = COUNTER

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Add `value`.

        Raises:
          ValueError: it is not positive, or a tag is missing.
          TypeError: it is no number.
        """
        _check_number(value)
        if value <= 0:
            raise ValueError(f"a counter only grows: value must be above 0, not {value}")
        self._record(value, tags)

    def __reduce__(self) -> tuple[Any, ...]:
        return Counter, (self._name, self._description, self._tag_keys)


class Gauge(Metric):
    """A number that goes up and down: a queue's length, a loss."""

    _kind = GAUGE

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        """It is `value` now; None changes nothing. Raises as `Counter.inc`, but for the sign."""
        if value is None:
            return
        _check_number(value)
        self._record(value, tags)

    def __reduce__(self) -> tuple[Any, ...]:
        return Gauge, (self._name, self._description, self._tag_keys)


class Histogram(Metric):
    """How many values were up to each boundary: latencies, sizes."""

    _kind = HISTOGRAM

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        """
        Raises:
          ValueError: there are no boundaries, or one is not positive.
        """
        if not boundaries:
            raise ValueError('a histogram has boundaries, as in Histogram("name", boundaries=[1.0, 2.0])')
        for index, boundary in enumerate(boundaries):
            if boundary <= 0:
                raise ValueError(f"boundaries are positive; number {index} of {list(boundaries)} is not")
        self.boundaries = boundaries
        super().__init__(name, description, tag_keys, tuple(sorted(float(boundary) for boundary in boundaries)))

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        """One more value. Raises as `Counter.inc`, but for the sign."""
        _check_number(value)
        self._record(value, tags)

    @property
    def info(self) -> dict[str, Any]:
        """As of every metric, and the boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def __reduce__(self) -> tuple[Any, ...]:
        return Histogram, (self._name, self._description, self.boundaries, self._tag_keys)


@dataclass(frozen=True, slots=True)
class MetricState:
    """A metric with one combination of tags, as the session has it.

    value: sum of a counter, last value of a gauge, sum of all values of a histogram.
    buckets: of a histogram: boundary (the last is infinite) -> values up to it.
    count: of a histogram: values in all.
    """

    name: str
    kind: str
    description: str
    tags: dict[str, str]
    value: float
    buckets: dict[float, int]
    count: int


def snapshot() -> list[MetricState]:
    """All metrics of the session, of the living processes and of the dead, added up.

    Raises:
      SessionError: there is no session.
    """
    return [state for row in _merged() for state in _states(row)]


def prometheus_text() -> str:
    """`snapshot` in the text format of Prometheus; names begin with ``shoal_``. Raises as `snapshot`."""
    lines = []
    for row in _merged():
        name = f"shoal_{row['name']}" + ("_total" if row["kind"] == COUNTER else "")
        if row["description"]:
            lines.append(f"# HELP {name} {_escaped(row['description'])}")
        lines.append(f"# TYPE {name} {row['kind']}")
        for state in _states(row):
            if row["kind"] == HISTOGRAM:
                for boundary, number in state.buckets.items():
                    upto = "+Inf" if boundary == float("inf") else f"{boundary:g}"
                    lines.append(f"{name}_bucket{_labels({**state.tags, 'le': upto})} {number}")
                lines.append(f"{name}_sum{_labels(state.tags)} {state.value}")
                lines.append(f"{name}_count{_labels(state.tags)} {state.count}")
            else:
                lines.append(f"{name}{_labels(state.tags)} {state.value}")
    return "".join(f"{line}\n" for line in lines)


def _merged() -> list[Row]:
    engine = running()
    if engine is None:
        raise SessionError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    survey = engine.survey(Question("metrics"))
    left = [row for row in survey.facts if "points" in row]
    return merge([*left, *(row for rows in survey.answers.values() for row in rows)])


def _states(row: Row) -> list[MetricState]:
    states = []
    for values, numbers in row["points"]:
        tags = dict(zip(row["tag_keys"], values, strict=True))
        buckets: dict[float, int] = {}
        if row["kind"] == HISTOGRAM:
            upto = accumulate(int(number) for number in numbers[:-1])
            buckets = dict(zip([*row["boundaries"], float("inf")], upto, strict=True))
        value = numbers[-1] if row["kind"] == HISTOGRAM else numbers[0]
        count = buckets[float("inf")] if buckets else 0
        states.append(MetricState(row["name"], row["kind"], row["description"], tags, value, buckets, count))
    return states


def _labels(tags: Mapping[str, str]) -> str:
    inside = ",".join(f'{key}="{_escaped(value)}"' for key, value in tags.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _check_tags(tags: Mapping[str, str]) -> None:
    for value in tags.values():
        if not isinstance(value, str):
            raise TypeError(f"a tag's value is a string, not {type(value).__name__} {value!r}")


def _check_number(value: object) -> None:
    if not isinstance(value, (int, float)):
        raise TypeError(f"value must be a number, not {type(value).__name__} {value!r}")
