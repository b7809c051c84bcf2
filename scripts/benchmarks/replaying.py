"""The root of a generation, replayed with results that nobody has played: what it costs, flat and with a tree.

A generation of 10,000 pairs comes from many virtual senders, which live in a few actors: what the root is told, and by
how many, is real, and so are the messages. Flat, every sender sends a report of its own, and the root adds up all the
noise. With a tree, as many actors as the fan-out stand for the aggregators below the root: each sends one report for
all its senders, gets its share of the weights and sends one vector. Counted are the CPU seconds of the root's process,
all of its threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import shoal
from shoal.algorithms.strategies.open_es import OpenES
from shoal.rllib.evolution.evolution_worker import NoiseSource
from shoal.rllib.evolution.exact_sums import Share, Sums, added, as_floats, exact_sums
from shoal.rllib.evolution.noise import noise_table
from shoal.rllib.evolution.pair_book import PairBook
from shoal.rllib.evolution.reports import RECORD, Report

PAIRS, PARAMETERS = 10_000, 100_000
SENDERS = (64, 512, 4_096, 8_192)


@dataclass(frozen=True)
class Cost:
    """CPU seconds of the root in one generation."""

    senders: int
    fan_out: int  #: 0: flat
    receiving_s: float  #: asking, receiving and sorting reports, and weighing
    summing_s: float  #: until the centre has moved

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.receiving_s + self.summing_s


class Senders:
    """Many senders, or an aggregator above them, in one actor."""

    def __init__(self, noise: NoiseSource) -> None:
        self._noise = noise.open(PARAMETERS)

    def play(self, generation: int, first: int, count: int) -> bytes:
        """A report of these pairs, with returns that follow from their numbers."""
        records = np.zeros(count, RECORD)
        records["pair"] = np.arange(first, first + count)
        records["fitness"] = np.sin(records["pair"][:, None] * (1.0, 1.7) + generation)
        records["score"] = records["fitness"]
        records["length"] = 1000
        return Report(generation, np.array([first], np.int32), records, np.zeros((1, 0))).to_bytes()

    def sums(self, share: Share) -> Sums:
        """What an aggregator makes of its share."""
        return exact_sums(self._noise, share)


class Root:
    """The root of a tree, or of a flat crowd, and the actors below it.

    Args:
      actors: How many processes there are to be below.
    """

    def __init__(self, actors: int) -> None:
        table = shoal.put(noise_table(0))
        source = NoiseSource(0, table)
        made = shoal.remote(Senders).options(num_cpus=0)
        self._actors = [made.remote(source) for _ in range(actors)]
        self._noise = source.open(PARAMETERS)
        self._strategy = OpenES(np.zeros(PARAMETERS), num_pairs=PAIRS)

    def generation(self, senders: int, fan_out: int) -> Cost:
        """One generation.

        Args:
          senders: Virtual ones.
          fan_out: Of the tree; 0 for none.
        """
        number = self._strategy.generation
        began_s = time.process_time()
        book = PairBook(PAIRS, "wait")
        book.begin(number)
        for report in self._reports(number, fan_out or senders):
            book.add(report)
        batch = book.take()
        weighing = self._strategy.weigh(batch.records["fitness"], np.ones(PAIRS, bool))
        share = Share.of(batch.generations, batch.records["pair"], weighing.weights)
        received_s = time.process_time()
        if fan_out:
            asked = zip(self._actors, share.split([1] * fan_out), strict=True)
            sums = added(shoal.get([actor.sums.remote(part) for actor, part in asked]))
        else:
            sums = exact_sums(self._noise, share)
        self._strategy.tell(as_floats(sums, share), weighing)
        return Cost(senders, fan_out, received_s - began_s, time.process_time() - received_s)

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            shoal.kill(actor)

    def _reports(self, generation: int, senders: int) -> Iterator[Report]:
        ends = [PAIRS * sender // senders for sender in range(senders + 1)]
        asked = []
        for sender, (first, end) in enumerate(pairwise(ends)):
            actor = self._actors[sender % len(self._actors)]
            asked.append(actor.play.remote(generation, first, end - first))
        # All at once, which is the cheapest way there is: who waits for each as it comes pays more.
        for content in shoal.get(asked):
            yield Report.from_bytes(content)


def replay(senders: Sequence[int], fan_out: int, rounds: int) -> list[Cost]:
    """The median round of each number of senders, flat and with a tree, in turn."""
    shoal.init(num_cpus=2)
    root = Root(fan_out)
    try:
        root.generation(fan_out, fan_out)  # so that everybody has started, and has the noise
        cases = [(count, shape) for count in senders for shape in (0, fan_out)]
        found: dict[Any, list[Cost]] = {case: [] for case in cases}
        for _ in range(rounds):
            for count, shape in cases:
                found[count, shape].append(root.generation(count, shape))
    finally:
        root.close()
        shoal.shutdown()
    return [sorted(costs, key=lambda cost: cost.total_s)[len(costs) // 2] for costs in found.values()]
