"""What HTTP itself counts: requests that never reach a policy are only here. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from .measures import SECONDS, Tally
from .prometheus import TextWriter


@dataclass
class HttpCounts:
    """Requests, and how long they took."""

    latency: dict[str, Tally] = field(default_factory=dict)  #: route ->
    answers: dict[tuple[str, int], int] = field(default_factory=dict)  #: (route, status) ->
    in_flight: int = 0

    def add(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        key = (route, status)
        self.answers[key] = self.answers.get(key, 0) + 1
        tally = self.latency.get(route)
        if tally is None:
            tally = self.latency[route] = Tally(SECONDS)
        tally.add(seconds)

    def write(self, writer: TextWriter) -> None:
        """All of it, as Prometheus reads it."""
        writer.family("shoal_http_requests_total", "counter", "HTTP requests by route and status.")
        for (route, status), count in sorted(self.answers.items()):
            writer.number("shoal_http_requests_total", count, {"route": route, "status": status})
        writer.family("shoal_http_latency_seconds", "histogram", "From a request's head to its answer.")
        for route, tally in sorted(self.latency.items()):
            writer.histogram("shoal_http_latency_seconds", tally.read(), {"route": route})
        writer.family("shoal_http_in_flight", "gauge", "HTTP requests under way, this one among them.")
        writer.number("shoal_http_in_flight", self.in_flight, {})
