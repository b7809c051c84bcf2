"""Generations of an evolution strategy while its workers die, judged by those of one worker that nobody harms.

The strategy is small and its episodes are short, so that there are several generations a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shoal.algorithms.es import ES, ESConfig
from shoal.scripts.endurance.killer import Killer, every_worker

#: Least generations of a run, and least kills in it.
LEAST = 2
#: Between two kills: whoever is killed needs half a second to start again, or more.
PACE_S = 1.0
#: 0: the driver has the workers for children; else most children of anybody.
FAN_OUTS = (0, 2, 4)


@dataclass(frozen=True)
class Run:
    """What came of a run under fire."""

    title: str
    digests: Sequence[str]  #: after each generation, of all that goes on
    kills: int


def under_fire(title: str, *, seed: int, kills_seed: int, num_workers: int, fan_out: int) -> Run:
    """A run, until somebody has been killed often enough.

    Raises:
      WorkerLostError: it has been given up.
    """
    made = _algorithm(seed, num_workers=num_workers, fan_out=fan_out)
    killer, digests = Killer(kills_seed, every_worker, pace_s=PACE_S), list[str]()
    try:
        with killer.at_work():
            for digest in _generations(made):
                digests.append(digest)
                if len(digests) >= LEAST and killer.kills >= LEAST:
                    break
    finally:
        made.close()
    return Run(title, digests, killer.kills)


def differences(runs: Sequence[Run], seed: int) -> list[str]:
    """Where runs have other bits than that of one worker which is left in peace; the first of each."""
    found: list[str] = []
    right = list(runs)
    unharmed = _algorithm(seed, num_workers=1, fan_out=0)
    try:
        generations = _generations(unharmed)
        for number in range(max((len(run.digests) for run in runs), default=0)):
            digest = next(generations)
            wrong = [run for run in right if run.digests[number : number + 1] not in ([], [digest])]
            right = [run for run in right if run not in wrong]
            found += [f"{run.title}: generation {number} has other bits than unharmed" for run in wrong]
    finally:
        unharmed.close()
    return found


def _algorithm(seed: int, *, num_workers: int, fan_out: int) -> ES:
    return ES(
        ESConfig(
            env="CartPole-v1+time_limit=100",
            seed=seed,
            num_workers=num_workers,
            fan_out=fan_out,
            population_size=120,
            hidden_sizes=(16,),
            block_size=2,
            normalize_observations=True,
        )
    )


def _generations(made: ES) -> Iterator[str]:
    while True:
        made.step()
        digest = hashlib.sha256()
        for _, arrays in sorted(made.checkpoint().tensors.items()):
            for _, array in sorted(arrays.items()):
                digest.update(array.tobytes())
        yield digest.hexdigest()
