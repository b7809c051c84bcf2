"""What HTTP needs of whatever holds the policies. ``policy_server.py`` is the real one; tests have a small one."""

from __future__ import annotations

from typing import Protocol

from .episode_requests import EpisodeEnd, EpisodeEnded, EpisodeStarted, EpisodeStep, StartEpisode, StepReply
from .measures import ServingMetrics
from .requests import ActReply, ActRequest, PolicyInfo


class Episodes(Protocol):
    """Where simulators tell of their episodes, see ``episode_desk.py``. All raise ServingError."""

    async def start(self, asking: StartEpisode) -> EpisodeStarted: ...

    async def step(self, episode: str, asking: EpisodeStep) -> StepReply: ...

    async def end(self, episode: str, asking: EpisodeEnd) -> EpisodeEnded: ...


class Policies(Protocol):
    """Policies that answer. All calls come from one event loop."""

    @property
    def episodes(self) -> Episodes | None:
        """For simulators; None where nobody learns from them."""
        ...

    async def act(self, policy: str, request: ActRequest) -> ActReply:
        """Actions for every row.

        Args:
          policy: "name", or "name:version" (``requests.parse_name``).
          request: As a stranger wrote it: it is for this method to check that it fits (``checking.checked``).

        Raises:
          ServingError: any of ``errors.py``. What else is raised is answered as PolicyFailed.
        """
        ...

    def infos(self) -> list[PolicyInfo]:
        """Every policy that is served, by name."""
        ...

    def ready(self) -> bool:
        """Whether requests are answered: a policy is loaded, and the server is not leaving."""
        ...

    def metrics(self) -> ServingMetrics:
        """How it goes."""
        ...
