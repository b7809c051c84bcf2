"""`shoal evaluate RUN_DIR`: play with the policy of a checkpoint and print what it earns.

Plays in this process: no workers are started, and no torch is imported. With another `--engine` than inline, a worker
of a session plays, which on a Ray cluster may be on any machine. With the run's own seed, which is the default,
the episodes are the ones that the run's last evaluation played.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

import shoal
from shoal import algorithms, exceptions
from shoal.envs import registry
from shoal.envs.copies import EnvCopy
from shoal.rllib.config import AlgorithmConfig, from_dict
from shoal.rllib.external_settings import is_external
from shoal.rllib.policies import policy_spec
from shoal.rllib.policies.policy import Policy
from shoal.rllib.rollouts import evaluation
from shoal.rllib.training import checkpoints, video
from shoal.rllib.worker_set import WorkerLostError
from shoal.scripts import run_directory
from shoal.scripts.command_line import DONE, UsageError, parse, run_command
from shoal.scripts.session_flags import INLINE, SessionFlags
from shoal.scripts.standard_streams import leave, printing

PROG = "shoal evaluate"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal evaluate` can be told."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    """Run directory, whose newest checkpoint is played; or a checkpoint itself."""

    episodes: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Episodes to play, at least 1; by default as many as the run itself evaluates with."""

    seed: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Decides how each episode starts, 0 or more; by default the run's own seed."""

    record: Annotated[Path | None, tyro.conf.arg(metavar="FILE.mp4")] = None
    """Make a film of the first episode, too."""

    session: tyro.conf.OmitArgPrefixes[SessionFlags] = INLINE


def main(arguments: Sequence[str]) -> int:
    """Run `shoal evaluate` with these arguments and return its exit code."""
    return run_command(PROG, lambda: evaluate(arguments))


def evaluate(arguments: Sequence[str]) -> int:
    """Load, play, print.

    Raises:
      UsageError, ConfigError, CheckpointError, UnknownEnvironment: what is wrong, in one line.
      EnvFailure: the environment raised.
      WorkerLostError: the process that played has died, again and again.
    """
    options = parse(
        Options, arguments, prog=PROG, description="Play with the policy of a training run and print what it earns."
    )
    options.session.check()
    for name in ("episodes", "seed"):
        least, value = (1, options.episodes) if name == "episodes" else (0, options.seed)
        if value is not None and value < least:
            raise UsageError(f"--{name} must be at least {least}, not {value}")
    place = run_directory.find_checkpoint(options.run)
    checkpoint = checkpoints.load(place)
    algorithm = algorithms.load(checkpoint.algorithm)
    config = from_dict(algorithms.config_class(checkpoint.algorithm), checkpoint.config)
    if is_external(config):
        raise UsageError(
            f"{options.run}: external simulators played, so there is no environment here to evaluate in; they may ask "
            f"`shoal serve {options.run}`"
        )
    policy, steps = algorithm.policy_from(checkpoint), checkpoint.counter("steps")
    _check_fits(policy, config.env)
    episodes = config.eval_episodes if options.episodes is None else options.episodes
    seed = config.seed if options.seed is None else options.seed
    if options.record is not None:
        _film(options.record, config, policy, seed)
    played = _play(options.session, config, policy, episodes, seed)
    with printing():
        print(f"{checkpoint.algorithm} on {config.env} after {steps:,} steps ({place})")
        print(run_directory.describe(played))
    return DONE


def _play(
    session: SessionFlags, config: AlgorithmConfig, policy: Policy, episodes: int, seed: int
) -> evaluation.Evaluation:
    if session.engine == "inline":
        return evaluation.play(config.env, policy, episodes, seed, checks=config.checks)
    try:
        session.begin()
        playing = shoal.remote(evaluation.play).remote(config.env, policy, episodes, seed, checks=config.checks)
        played: evaluation.Evaluation = shoal.get(playing)
    except exceptions.WorkerCrashedError as error:
        raise WorkerLostError(f"whoever played {config.env} has died: {error}") from error
    finally:
        shoal.shutdown()
    return played


def _film(path: Path, config: AlgorithmConfig, policy: Policy, seed: int) -> None:
    if path.suffix.lower() != ".mp4" or not path.parent.is_dir():
        raise UsageError(f"--record {path}: name a file that ends in .mp4, in a folder that there is")
    try:
        video.record(config.env, policy, path, seed=seed, checks=config.checks)
    except OSError as error:
        # imageio adds the whole command by which it had called ffmpeg.
        raise UsageError(f"--record {path} cannot be written: {str(error).splitlines()[0]}") from error


def _check_fits(policy: Policy, env_id: str) -> None:
    registry.check(env_id)
    copy = EnvCopy(partial(registry.make, env_id), 0)
    try:
        policy_spec.check_fits(policy.spec, env_id, copy.observation_space, copy.action_space)
    finally:
        copy.close()


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
