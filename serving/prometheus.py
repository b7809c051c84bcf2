"""Metrics in Prometheus' text format (version 0.0.4). Pure. The library would bring a registry of its own; what is
written here was already counted elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter

from .measures import Histogram, PolicyMetrics, ServingMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str | int]


class TextWriter:
    """Collects metrics, family by family."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, about: str) -> None:
        """What follows is of this family.

        Args:
          name: With its unit at the end: "shoal_serving_latency_seconds".
          kind: counter, gauge or histogram.
          about: One sentence.
        """
        self._lines += [f"# HELP {name} {_escaped(about, quotes=False)}", f"# TYPE {name} {kind}"]

    def number(self, name: str, value: float, labels: Labels) -> None:
        self._lines.append(f"{name}{_braced(labels)} {_number(value)}")

    def histogram(self, name: str, read: Histogram, labels: Labels) -> None:
        count = 0
        for bound, of_bucket in zip((*read.bounds, float("inf")), read.counts, strict=True):
            count += of_bucket
            self.number(f"{name}_bucket", count, {**labels, "le": _number(bound)})
        self.number(f"{name}_sum", read.total, labels)
        self.number(f"{name}_count", count, labels)

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


_HISTOGRAMS: tuple[tuple[str, str, Callable[[PolicyMetrics], Histogram]], ...] = (
    ("shoal_serving_latency_seconds", "From arrival in the queue to the answer.", attrgetter("latency_s")),
    ("shoal_serving_queue_seconds", "From arrival until the batch began.", attrgetter("queue_s")),
    ("shoal_serving_batch_rows", "Rows of a batch.", attrgetter("batch_rows")),
)


def write_serving(writer: TextWriter, metrics: ServingMetrics) -> None:
    """All that ``Policies.metrics`` tells."""
    for name, about, read in _HISTOGRAMS:
        writer.family(name, "histogram", about)
        for policy in metrics.policies:
            writer.histogram(name, read(policy), {"policy": policy.policy})
    writer.family("shoal_serving_in_flight", "gauge", "Requests that wait for their answer.")
    for policy in metrics.policies:
        writer.number("shoal_serving_in_flight", policy.in_flight, {"policy": policy.policy})
    writer.family("shoal_serving_version", "gauge", "Newest version that serves.")
    for policy in metrics.policies:
        writer.number("shoal_serving_version", policy.version, {"policy": policy.policy})
    writer.family("shoal_serving_answers_total", "counter", "Requests by how they ended.")
    for policy in metrics.policies:
        for code, count in sorted(policy.answers.items()):
            writer.number("shoal_serving_answers_total", count, {"policy": policy.policy, "code": code})
    writer.family("shoal_serving_sessions", "gauge", "Recurrent states that are kept.")
    writer.number("shoal_serving_sessions", metrics.sessions, {})
    writer.family("shoal_serving_refused_weights_total", "counter", "Checkpoints and versions that were not taken.")
    writer.number("shoal_serving_refused_weights_total", metrics.refused_weights, {})


def _braced(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(str(value), quotes=True)}"' for name, value in labels.items()) + "}"


def _escaped(text: str, *, quotes: bool) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
