"""The workers of an evolution strategy, or the aggregators between, as seen by whoever has them for children.

The driver has a ``Crew``; so has every ``Aggregator``, an actor between the driver and workers. Requests go down, and
reports and sums come up:

    driver --tasks--> aggregator --tasks--> worker           worker --report--> aggregator --joined reports--> driver
    driver --shares of weights--> aggregator [--> ...]        aggregators --int64 [P] each--> driver

Tasks are handed out as children become ready: to workers one at a time, ``max_in_flight`` each; to aggregators many,
but fewer the less is left, so that all are done at about the same time. An aggregator has one request at a time, which
names all that it has still to do, and answers it with what is done by then, several times a second: so who asks has
every report soon, and the aggregator that follows one that died is asked only for the rest. Whoever has workers for
children adds up its share of the weighted noise itself.

A child that dies is replaced by ``WorkerSet`` and asked again; as reports and sums are functions of what was asked,
nothing else changes. The workers of an aggregator that dies die with it. Who kills children at random must not end the
run, but an episode that kills its worker must, by name:

    worker      plays environments, which may be at fault. Three deaths in a row -> the episodes of the task one by one,
                each by a worker that has started; what has been played is kept. Three deaths in one episode end it.
    aggregator  runs nothing of anybody's: only 50 deaths in a row without a word in between end the run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...core import api
from ...envs.vector import Episode
from ..policies.policy_spec import NetworkSettings, PolicySpec
from ..threads import limit_matrix_threads
from ..worker_set import MAX_DEATHS_IN_A_ROW, Request, WorkerLostError, WorkerSet
from .candidate_player import Outcome, PlaySettings
from .evolution_worker import EvolutionWorker, NoiseSource
from .exact_sums import Share, Sums, added, exact_sums
from .noise import Noise
from .reports import Report, joined
from .tree import Branch

#: Shares of the tasks that are left which the aggregators below somebody get at once, together.
_SHARE_AT_ONCE = 0.5
#: Seconds after which an aggregator tells what is done, as soon as there is something.
REPORT_AFTER_S = 0.25
#: Evaluation episodes that a worker plays in one request, side by side.
_EVALUATED_AT_ONCE = 4
#: Deaths in a row of those whose work is not what kills them: a start takes a second, and who kills at random may kill
#: each second, so that most lives end before a word.
MANY_DEATHS = 50


@dataclass(frozen=True)
class CrewSettings:
    """What all workers of a run have in common, and how many requests each has in flight."""

    play: PlaySettings
    noise: NoiseSource
    max_in_flight: int


class Crew:
    """Children, which are asked together. Made and used by one thread.

    Args:
      settings: Of the workers, however far below.
      place: Whose children these are, in the tree.
    """

    def __init__(self, settings: CrewSettings, place: Branch) -> None:
        self._settings, self._branches = settings, place.branches
        self._workers = place.workers
        self.capacities = [len(branch.workers) for branch in place.branches] or [1] * len(place.workers)
        self.children = WorkerSet(
            self._make,
            len(self.capacities),
            max_in_flight=1 if place.branches else settings.max_in_flight,
            kind="aggregator" if place.branches else "rollout worker",
            is_quick=not place.branches,
            max_deaths=MANY_DEATHS if place.branches else MAX_DEATHS_IN_A_ROW,
            about="" if place.branches else f"it plays {settings.play.env_id}",
        )
        self.replaced_below = 0  #: workers that died and were replaced by children of this crew
        self._last_death_below = ""
        self._waiting: deque[int] = deque()  # tasks that nobody was asked for yet
        self._asked: list[dict[int, None]] = [{} for _ in self.capacities]  # tasks of each aggregator, not yet done
        self._generation: Any = None

    @property
    def replaced(self) -> int:
        """Children, and theirs, that died and were replaced so far."""
        return self.children.replacements + self.replaced_below

    @property
    def last_death(self) -> str:
        """Why one of these had died, the last that is known."""
        return self.children.last_death or self._last_death_below

    def policy_spec(self, network: NetworkSettings) -> PolicySpec:
        """The shape of the policy, by asking every worker: an environment that cannot be made anywhere fails here."""
        specs: list[PolicySpec] = self.children.map("policy_spec", [(network,)] * len(self.children))
        return specs[0]

    def begin(self, generation: Any, tasks: Sequence[int]) -> None:
        """Hand out tasks of a generation, see ``reports``; those of before that nobody was asked for are dropped.

        Args:
          generation: Reference to a ``Generation``.
          tasks: Numbers, see ``evolution_worker.py``.
        """
        self._generation = generation
        self._waiting.clear()
        self.add(tasks)

    def add(self, tasks: Sequence[int]) -> None:
        """Hand out more tasks of the generation."""
        self._waiting.extend(tasks)
        for _ in range(self.children.max_in_flight):
            for child in range(len(self.children)):
                self._feed(child)

    def reports(self) -> Iterator[Report]:
        """Reports as they come, of these tasks and of what was asked before, until nothing is in flight. Whoever sent
        one gets the next task before it is given out.

        Raises:
          EnvFailure: an environment raised.
          WorkerLostError: a child keeps dying.
        """
        while True:
            try:
                for completed in self.children.completed():
                    yield self._received(completed.worker, completed.value)
            except WorkerLostError as error:
                if not error.requests or error.requests[0].method != "play" or self._branches:
                    raise
                yield self._played_one_by_one(*error.requests)
            else:
                return

    def sums(self, noise: Noise, share: Share) -> Sums:
        """Weighted noise of a share, power -> [P] int64: by the aggregators below, or here if there are none."""
        if not self._branches:
            return exact_sums(noise, share)
        parts: list[Sums] = self.children.map("sums", [(part, noise.size) for part in share.split(self.capacities)])
        return added(parts)

    def evaluate(self, weights: Any, episodes: Sequence[int]) -> list[Episode]:
        """Play these evaluation episodes, in order; weights by reference. A few at a time, so that little is played
        again when somebody dies.

        Raises:
          EnvFailure: an environment raised.
          WorkerLostError: a child keeps dying.
        """
        given = (weights,) if self._branches else weights  # a reference inside a tuple is passed on as it is
        waiting, played = deque(episodes), dict[int, Episode]()
        asked: list[list[int]] = [[] for _ in self.capacities]

        def feed(child: int) -> None:
            at_once = min(_EVALUATED_AT_ONCE * self.capacities[child], len(waiting))
            asked[child] = [waiting.popleft() for _ in range(at_once)]
            if asked[child]:
                self.children.submit(child, "evaluate", given, asked[child])

        for child in range(len(self.children)):
            feed(child)
        for completed in self.children.completed():
            played.update(zip(asked[completed.worker], completed.value, strict=True))
            feed(completed.worker)
        return [played[episode] for episode in episodes]

    def close(self) -> None:
        """Kill the children, and theirs."""
        self.children.close()

    def _received(self, child: int, content: bytes) -> Report:
        """A report has come."""
        report = Report.from_bytes(content)
        for task in report.blocks.tolist():
            self._asked[child].pop(task, None)
        self._feed(child)
        self.replaced_below += report.replaced
        self._last_death_below = report.last_death or self._last_death_below
        return report

    def _feed(self, child: int) -> None:
        """Give a child work, if there is any and it may have more in flight."""
        if self.children.in_flight(child) >= self.children.max_in_flight:
            return
        if self._branches:
            self._feed_aggregator(child)
        elif self._waiting:
            self.children.submit(child, "play", self._generation, self._waiting.popleft())

    def _feed_aggregator(self, child: int) -> None:
        """Ask an aggregator for what it has still to do, and for a share of what is left besides."""
        asked, capacity = self._asked[child], self.capacities[child]
        share = _SHARE_AT_ONCE * capacity / sum(self.capacities)
        has = max(capacity * self._settings.max_in_flight, round((len(self._waiting) + len(asked)) * share))
        for _ in range(min(max(has - len(asked), 0), len(self._waiting))):
            asked[self._waiting.popleft()] = None
        if asked:
            self.children.submit(child, "play", (self._generation,), tuple(asked))

    def _played_one_by_one(self, suspect: Request, *others: Request) -> Report:
        """A task that its worker died of again and again, episode by episode; then the worker's other tasks go on.

        Raises:
          WorkerLostError: it died of one of them, and of that one alone; names it.
        """
        worker, (generation, task) = suspect.worker, suspect.arguments
        titles = self._titles(worker, generation, task)
        outcomes: list[Outcome] = []
        for place, title in enumerate(titles):
            deaths = 0
            while len(outcomes) == place:
                try:
                    outcomes.append(self.children.ask(worker, "play_one", generation, task, place, max_deaths=1))
                except WorkerLostError as error:
                    deaths += 1
                    if deaths == MAX_DEATHS_IN_A_ROW:
                        raise WorkerLostError(
                            f"{title}: its worker dies when it is played: {deaths} times in a row, "
                            f"the last with nothing beside it: {error.__cause__}"
                        ) from error
                    # Whether the next has started is another question than whether it lives through this.
                    self._titles(worker, generation, task)
        content: bytes = self.children.ask(worker, "join", generation, task, outcomes, max_deaths=MANY_DEATHS)
        for other in others:
            self.children.submit(worker, other.method, *other.arguments)
        return self._received(worker, content)

    def _titles(self, worker: int, generation: Any, task: int) -> list[str]:
        """What the episodes of a task are called, by a worker that has made all that playing them needs.

        Raises:
          WorkerLostError: it never comes so far; says so.
        """
        try:
            titles: list[str] = self.children.ask(worker, "titles", generation, task, max_deaths=MANY_DEATHS)
        except WorkerLostError as error:
            raise WorkerLostError(
                f"rollout worker {worker} dies before it plays anything, while it makes its environments, which are "
                f"the fewer the smaller --block-size is: {error}"
            ) from error
        return titles

    def _make(self, child: int, replacement: int) -> Any:
        if self._branches:
            actor = api.remote(Aggregator).options(num_cpus=0)
            return actor.remote(settings=self._settings, place=self._branches[child])
        return (
            api.remote(EvolutionWorker)
            .options(num_cpus=1)
            .remote(settings=self._settings.play, noise=self._settings.noise, worker_index=self._workers[child])
        )


class Aggregator:
    """Stands between whoever asks and those below: passes tasks on, joins reports, adds up noise. A plain class.

    Args:
      settings: Of the workers.
      place: Which of them are below.
    """

    def __init__(self, *, settings: CrewSettings, place: Branch) -> None:
        self._settings, self._place = settings, place
        self._made: Crew | None = None
        self._generation: Any = None
        self._in_hand: set[int] = set()  # tasks of it that are to be done, or done and not told
        self._told = 0  # deaths that were reported
        self._noise: Noise | None = None
        limit_matrix_threads(1)

    def policy_spec(self, network: NetworkSettings) -> PolicySpec:
        """See ``Crew``."""
        return self._crew.policy_spec(network)

    def play(self, generation: tuple[Any], tasks: Sequence[int]) -> bytes:
        """Have tasks done; gives reports of one or more that are done, as one, as it travels. Those that are not go on
        meanwhile, and are told of when asked for again.

        Args:
          generation: The reference, as the only element.
          tasks: Numbers of all that this aggregator is still to do.
        """
        crew, until_s = self._crew, time.monotonic() + REPORT_AFTER_S
        if generation[0] == self._generation:
            crew.add([task for task in tasks if task not in self._in_hand])
        else:
            self._generation = generation[0]
            crew.begin(generation[0], tasks)
        self._in_hand = set(tasks)
        reports: list[Report] = []
        for report in crew.reports():
            reports.append(report)
            if time.monotonic() >= until_s:
                break
        report = joined(reports)
        self._in_hand.difference_update(report.blocks.tolist())
        died, self._told = crew.replaced - self._told, crew.replaced
        told = Report(
            report.generation, report.blocks, report.records, report.moments, died, crew.last_death if died else ""
        )
        return told.to_bytes()

    def sums(self, share: Share, size: int) -> Sums:
        """See ``Crew``."""
        if self._noise is None:
            self._noise = self._settings.noise.open(size)
        return self._crew.sums(self._noise, share)

    def evaluate(self, weights: tuple[Any], episodes: Sequence[int]) -> list[Episode]:
        """See ``Crew``; the reference as the only element."""
        return self._crew.evaluate(weights[0], episodes)

    @property
    def _crew(self) -> Crew:
        if self._made is None:
            self._made = Crew(self._settings, self._place)
        return self._made
