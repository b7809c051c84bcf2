"""`shoal train`: train an algorithm on an environment, from flags to a run directory.

    flags -> config -> shoal.init -> Algorithm -> step, step, ... -> checkpoint -> evaluation -> shoal.shutdown

The flags are the fields of the algorithm's config. `--resume RUN_DIR` takes them from the run's newest checkpoint and
goes on; flags given beside it override (a larger `--total-steps`, other intervals). Ctrl-C, SIGTERM
or SIGHUP lets the iteration in progress finish, saves a checkpoint and leaves; a second one leaves at once. What else
ends a run is told with its last checkpoint. A display that is lost (a full disk, a reader that leaves) ends nothing.

What can be refused without a process is refused before one is started: flags, the environment's name, the run
directory, a checkpoint that is damaged, a callback that is not there. The loop itself is in `training_run.py`; `run`
is the way to the same from Python.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import tyro

import shoal
from shoal import algorithms
from shoal.algorithms import zoo
from shoal.envs import opening
from shoal.rllib import capacity, external_settings
from shoal.rllib.config import AlgorithmConfig, from_dict
from shoal.rllib.external_collection import LearnsFromOutside
from shoal.rllib.external_settings import ExternalSettings, is_external
from shoal.rllib.policies.policy_spec import NetworkSettings, check_fits, policy_spec
from shoal.rllib.trainable import Trainable
from shoal.rllib.training import callbacks, checkpoints, saved_state, video
from shoal.rllib.training.callbacks import Callback
from shoal.rllib.training.checkpoints import Checkpoint, CheckpointError
from shoal.scripts import run_directory, serving_beside, simulators
from shoal.scripts.command_line import UsageError, parse, run_command, value_of
from shoal.scripts.interruption import Interruption
from shoal.scripts.serving_beside import USUAL_NAME, ServedAt, ServedBeside
from shoal.scripts.session_flags import NATIVE, SessionFlags
from shoal.scripts.simulators import Simulators
from shoal.scripts.standard_streams import leave
from shoal.scripts.training_run import PROG, Display, Plan, Run

DEFAULT_ALGORITHM = "ppo"

C = TypeVar("C", bound=AlgorithmConfig)


@dataclass(frozen=True, kw_only=True)
class Options(Generic[C]):
    """What `shoal train` can be told: the run, and the settings of its algorithm."""

    algo: str = DEFAULT_ALGORITHM
    """Algorithm to train with; decides which of the settings below there are."""

    zoo: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Take environment and settings from this entry of the zoo, see `shoal zoo`; flags override."""

    run_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for the results; by default a new one in runs/, named after algorithm, environment, seed and time."""

    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN_DIR")] = None
    """Go on with the run in this folder, from its newest checkpoint and with its settings; flags override them."""

    callback: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE:ATTRIBUTE ...")] = ()
    """Your own code called after iterations, evaluations and checkpoints: see shoal.rllib.training.callbacks."""

    session: tyro.conf.OmitArgPrefixes[SessionFlags] = NATIVE

    record: bool = False
    """Make a film of the first episode of each evaluation, in videos/ of the run directory."""

    serve: Annotated[str | None, tyro.conf.arg(metavar="[HOST]:PORT")] = None
    """Let the policy answer requests over HTTP while it is trained, at this address; the token that they need lies in
    serve_token of the run directory."""

    token_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """With --serve, a file with the token that requests must have, readable by you alone, instead of one that ends with
    the run; if it is not there, it is made."""

    config: tyro.conf.OmitArgPrefixes[C]


def main(arguments: Sequence[str]) -> int:
    """Run `shoal train` with these arguments and return its exit code."""
    return run_command(PROG, lambda: train(plan(arguments)))


def plan(arguments: Sequence[str]) -> Plan:
    """Understand the command line and check all that can be checked before a process is started.

    Raises:
      UsageError, ConfigError, UnknownEnvironment, UnknownCallback, CheckpointError: what is wrong, in one line.
    """
    resume = value_of("--resume", arguments)
    if resume == "":
        raise UsageError("--resume is empty: give the run directory of an earlier `shoal train`")
    if value_of("--run-dir", arguments) == "":
        raise UsageError("--run-dir is empty: name a folder, or leave the flag away")
    if value_of("--algo", arguments) == "":
        raise UsageError(f"--algo is empty: choose from {', '.join(algorithms.NAMES)}, or leave the flag away")
    entry = zoo.find(named) if (named := value_of("--zoo", arguments)) is not None else None
    if entry and resume:
        raise UsageError("--resume goes on with the run's own settings: leave --zoo away")
    checkpoint = _newest(Path(resume)) if resume else None
    usual = checkpoint.algorithm if checkpoint else entry.algorithm if entry else DEFAULT_ALGORITHM
    name = value_of("--algo", arguments) or usual
    if checkpoint and name != checkpoint.algorithm:
        raise UsageError(f"the run in {resume} is one of {checkpoint.algorithm}, not of {name}: drop --algo")
    if entry and name != entry.algorithm:
        raise UsageError(f"the zoo's {entry.name} is for {entry.algorithm}, not for {name}: drop --algo")
    algorithm = algorithms.load(name)
    config_class = algorithms.config_class(name)
    if checkpoint:
        config = from_dict(config_class, checkpoint.config)
        _check_env_is_the_runs(resume, config.env, value_of("--env", arguments))
    else:
        config = entry.config() if entry else config_class()
    _check_plays_outside(name, config_class, arguments)
    options: Options[AlgorithmConfig] = parse(
        Options[config_class],  # type: ignore[valid-type]
        arguments,
        prog=PROG,
        description=f"Train {name} on an environment. Other algorithms: --algo {', '.join(algorithms.NAMES)}.",
        default=Options(algo=name, zoo=named, config=config),
    )
    options.session.check()
    capacity.check_rollouts_fit(options.config)
    if options.session.engine == "native":  # those of a cluster are elsewhere, and inline there are none
        capacity.check_workers_fit(options.config)
    if checkpoint is not None:
        _check_goes_on(options, checkpoint, config)
    _check_environment(name, options)
    run_dir = options.resume or run_directory.choose(options.run_dir, name, options.config)
    if options.record and not is_external(options.config):
        video.check(options.config.env)
    loaded = tuple(callbacks.load(called) for called in options.callback)
    serves_at = _served_at(options)
    return Plan(
        algorithm,
        options.config,
        run_dir,
        checkpoint,
        callbacks=loaded,
        session=options.session,
        records=options.record,
        serves_at=serves_at,
    )


def _check_env_is_the_runs(resume: str | None, learns: str, named: str | None) -> None:
    """Look at --env, before a config of the run's other settings is made with another."""
    if named is not None and named != learns:
        told = "from external simulators" if learns == external_settings.EXTERNAL else learns
        raise UsageError(f"the run in {resume} learns {told}, not {named}: drop --env")


def _check_plays_outside(name: str, config_class: type[AlgorithmConfig], arguments: Sequence[str]) -> None:
    """Look at what is said of external simulators, which not all algorithms have settings for."""
    if issubclass(config_class, ExternalSettings):
        return
    about = [f"--{each.name.replace('_', '-')}" for each in dataclasses.fields(ExternalSettings)]
    given = [flag for flag in about if value_of(flag, arguments) is not None]
    if value_of("--env", arguments) == external_settings.EXTERNAL:
        given.insert(0, "--env external")
    if given:
        raise UsageError(f"{given[0]}: {name} does not learn from external simulators; ppo does")


def _check_environment(name: str, options: Options[AlgorithmConfig]) -> None:
    """Look at whether there is what plays: an environment, or a place where external simulators can."""
    config = options.config
    if not is_external(config):
        opening.check(config.env, config.stepped_by)
        return
    settings = external_settings.check_supported(name, config)
    spaces = external_settings.spaces(settings)
    if isinstance(config, NetworkSettings):
        policy_spec(str(settings.external_spaces), *spaces, config.network_settings()).check_size("external_spaces")
    if options.serve is None:
        who = "--env external" if options.resume is None else f"the run in {options.resume}, of external simulators,"
        raise UsageError(f"{who} needs --serve [HOST]:PORT, where the simulators act")
    if options.record:
        raise UsageError("--record: external simulators play, and there is nothing here to film")


def _served_at(options: Options[AlgorithmConfig]) -> ServedAt | None:
    """Where the policy answers, if it shall."""
    if options.serve is None:
        if options.token_file is not None:
            raise UsageError("--token-file is for requests: without --serve there are none")
        return None
    host, port = serving_beside.address_of(options.serve)
    if options.session.engine != "native":
        raise UsageError(f"--serve: the engine {options.session.engine} serves nobody; leave --engine away")
    at = ServedAt(host, port, options.token_file)
    # What is wrong with these is told before anything starts.
    serving_beside.free_port(host, port, at.flags)
    if options.token_file is not None:
        serving_beside.token_in(options.token_file)
    return at


def _newest(resume: Path) -> Checkpoint:
    """The checkpoint that a run goes on from."""
    if (resume / checkpoints.MANIFEST).is_file():
        raise UsageError(f"--resume {resume} is a checkpoint: give the run directory that it is in")
    place = run_directory.find_run(resume)
    try:
        return checkpoints.load(place)
    except CheckpointError as error:
        if not checkpoints.has_older(place):
            raise
        told = f"{error}; without the folder {place} the run goes on from the checkpoint before"
        raise CheckpointError(told) from error


def _check_goes_on(options: Options[AlgorithmConfig], checkpoint: Checkpoint, learnt: AlgorithmConfig) -> None:
    """Look at whether the run that was named can go on as it is told to."""
    run_dir, seed = options.resume, learnt.seed
    if run_dir is None:  # `--resume` stood where tyro read it as another flag's value
        raise UsageError("--resume needs the run directory behind it")
    if options.run_dir is not None:
        raise UsageError("--resume goes on in the run's own directory: leave --run-dir away")
    if options.config.seed != seed:
        raise UsageError(f"the run in {run_dir} has the seed {seed}, not {options.config.seed}: drop --seed")
    if isinstance(options.config, ExternalSettings) and options.config.external_spaces is not None:
        spec, told = saved_state.weights_from(checkpoint).spec, options.config.external_spaces
        check_fits(spec, told, *external_settings.spaces(options.config), setting="external_spaces")
    run_directory.check_logs(run_dir)
    steps = checkpoint.counter("steps")
    is_complete = is_external(options.config) or run_directory.is_evaluated(run_dir, steps)
    if steps >= options.config.total_steps and is_complete:
        raise UsageError(f"the run in {run_dir} has done its {steps:,} steps: to go on, give a larger --total-steps")


def run(
    algorithm: str, config: AlgorithmConfig, *, run_dir: Path | None = None, callbacks: Sequence[Callback] = ()
) -> int:
    """Train from Python as `shoal train` does: display, run directory, signals and all. In the main thread only.

    Args:
      algorithm: its name, as in `--algo`.
      config: its settings.
      run_dir: folder for the results; None makes a new one in runs/.
      callbacks: called at the points of `shoal.rllib.training.callbacks`.

    Returns:
      As `train`.

    Raises:
      UsageError, ConfigError, UnknownEnvironment: what is wrong, in one line.
      EnvFailure, CallbackFailure, WorkerLostError, Stopped, ...: what ended the run.
    """
    if is_external(config):
        raise UsageError("env external: simulators need a server, which `shoal train --serve` starts")
    opening.check(config.env, config.stepped_by)
    capacity.check_rollouts_fit(config)
    capacity.check_workers_fit(config)
    place = run_directory.choose(run_dir, algorithm, config)
    return train(Plan(algorithms.load(algorithm), config, place, None, tuple(callbacks)))


def train(planned: Plan) -> int:
    """Carry the plan out; whatever happens, nothing is left running.

    Returns:
      The exit code: 0, or 128 + signal if the run was interrupted.
    """
    interruption = Interruption()
    display = Display()
    was_there = planned.run_dir.exists()
    with interruption.handled(), ExitStack() as held:
        if planned.resume_from is not None:
            held.enter_context(run_directory.lock(planned.run_dir))
        try:
            # Every rollout worker holds one CPU of the core's accounts, also where there are fewer cores than workers.
            planned.session.begin(num_cpus=max(os.cpu_count() or 1, planned.config.num_workers))
            algorithm = planned.algorithm(planned.config)
            try:
                with _served(planned, algorithm, interruption, display) as ready:
                    return Run(ready, algorithm, interruption, display, held).go()
            finally:
                interruption.over()
                algorithm.close()
        except KeyboardInterrupt as interrupt:
            interruption.over()
            told = str(interrupt) or "interrupted before training began; nothing was saved"
            # A server may have made it before the run came to it.
            if not was_there and run_directory.remove_unused(planned.run_dir):
                told += "; the run directory is removed"
            display.say(told)
            return interruption.exit_code
        finally:
            interruption.over()
            shoal.shutdown()


@contextmanager
def _served(planned: Plan, algorithm: Trainable, interruption: Interruption, display: Display) -> Iterator[Plan]:
    """The plan with a server among its callbacks, if it shall have one, for as long as the block."""
    saved, at = planned.resume_from, planned.serves_at
    if at is None:
        yield planned
        return
    weights = algorithm.weights() if saved is None else saved_state.weights_from(saved)
    if isinstance(algorithm, LearnsFromOutside) and algorithm.external is not None:
        # They play as soon as the server listens; when training begins, whole batches may be there.
        planned = dataclasses.replace(planned, played_since_s=time.monotonic())
        beside = simulators.beside(weights, algorithm.external, planned.config, at, planned.run_dir)
        is_over = partial(getattr, interruption, "requested")
        algorithm.learn_from(Simulators(beside.server, USUAL_NAME, weights.version, beside.url, is_over))
    else:
        spaces = serving_beside.spaces_for(weights.spec, planned.config.env)
        beside = ServedBeside(weights, spaces, at, planned.run_dir)
    try:
        display.say(f"serving at {beside.url}, token in {beside.token_file}")
        yield dataclasses.replace(planned, callbacks=(*planned.callbacks, beside))
    finally:
        beside.close()


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
