"""Environments by name.

A name is a gymnasium id (``CartPole-v1``), a gymnasium id with the module that registers it
(``my_package.games:Maze-v0``), or ``module:attribute`` where the attribute is a class or a function that returns an
environment (``my_package.games:Maze``). The last two are imported in whichever process makes the environment, so the
module must be importable in the rollout workers too. One that asks for ``num_envs`` makes vector environments. The name
``atari/space_invaders`` is a game as ``atari.py`` prepares it.

Wrappers follow in the name, innermost first: ``CartPole-v1+time_limit=200+frame_stack=4``. Each is one of ``WRAPPERS``
or ``module:attribute``, with an argument if it takes one, which is read as JSON, else taken as text. So whoever has
the name plays in the same environment: rollout workers, evaluation, the checkpoint that is looked at a year later.

``check`` tells whether a name can be made without making it; ``make`` makes one copy. gymnasium is imported at the
first call only: ``import shoal`` must not pay for it.
"""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
import inspect
import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import mujoco_log

if TYPE_CHECKING:
    import gymnasium

#: How many similar names an error offers.
MAX_SUGGESTIONS = 5


class UnknownEnvironment(ValueError):  # noqa: N818 - reads as what it says
    """No environment has this name. The text is one line: the name, why, what is close to it, where all are listed."""


class MissingLibrary(ImportError):  # noqa: N818 - reads as what it says
    """A library that an environment needs is not installed. One line: which, for what, and how it is installed."""


#: Wrappers by name, and where they are. Text, as they import gymnasium.
WRAPPERS = {
    "action_repeat": "ActionRepeat",
    "clip_reward": "ClipReward",
    "frame_stack": "FrameStack",
    "time_limit": "TimeLimit",
}
#: Those whose argument is a whole number of at least 1, which they cannot do without.
_COUNTING = ("action_repeat", "frame_stack", "time_limit")
#: What names of Atari games begin with.
ATARI = "atari/"

_Wrap = Callable[["gymnasium.Env[Any, Any]"], "gymnasium.Env[Any, Any]"]


def check(env_id: str) -> None:
    """Make sure that ``make(env_id)`` finds the environment and its wrappers, without constructing anything.

    Raises:
      UnknownEnvironment: no such id, module or attribute.
    """
    name, wrappers = split(env_id)
    find(name)
    for wrapper in wrappers:
        _wrapper(wrapper)


def make(env_id: str, *, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """One copy of the environment, in its wrappers.

    Args:
      env_id: Its name.
      render_mode: How it shall show itself, as gymnasium calls it; handed to its constructor if given.

    Raises:
      UnknownEnvironment: no such id, module or attribute.
      MissingLibrary: a registered environment cannot be imported.
      Exception: whatever the constructors of environment and wrappers raise.
    """
    name, wrappers = split(env_id)
    # A game of atari.py always has its picture ready.
    more = {} if render_mode is None or name.startswith(ATARI) else {"render_mode": render_mode}
    constructor = find(name)
    env: gymnasium.Env[Any, Any]
    if makes_vectors(constructor):
        env = _own_module("single").Single(constructor(num_envs=1, **more))
    else:
        env = constructor(**more)
    for wrapper in wrappers:
        env = _wrapper(wrapper)(env)
    return env


def makes_vectors(constructor: Callable[..., Any]) -> bool:
    """Whether this makes vector environments: it asks for ``num_envs`` and does not do without."""
    try:
        asked = inspect.signature(constructor).parameters.get("num_envs")
    except (TypeError, ValueError):  # some constructors written in C do not tell
        return False
    return asked is not None and asked.default is inspect.Parameter.empty


def split(env_id: str) -> tuple[str, list[str]]:
    """The name of the environment itself, and its wrappers, innermost first."""
    name, *wrappers = env_id.split("+")
    return name, wrappers


def find(env_id: str) -> Callable[..., Any]:
    """What makes the environment of this name without wrappers: takes no arguments, or ``num_envs``.

    Raises:
      UnknownEnvironment: no such id, module or attribute.
    """
    import gymnasium

    if env_id.startswith(ATARI):
        return _atari_game(env_id.removeprefix(ATARI))
    if env_id.startswith("ALE/"):
        _register_atari(env_id)
    module_name, separator, attribute = env_id.partition(":")
    if separator and not (module_name and attribute):
        missing = "name a class or function behind the colon" if module_name else "name a module before the colon"
        raise UnknownEnvironment(f"unknown environment {env_id!r}: {missing}, as in my_games:Maze")
    choices: list[str] = []
    if separator:
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise UnknownEnvironment(f"unknown environment {env_id!r}: no module {module_name!r} ({error})") from error
        except (Exception, SystemExit) as error:  # a module may ask to leave where it finds no licence or display
            told = f"importing {module_name!r} raised {type(error).__name__}: {' '.join(str(error).split())}"
            raise UnknownEnvironment(f"unknown environment {env_id!r}: {told}") from error
        if callable(made := getattr(module, attribute, None)):
            return made  # type: ignore[no-any-return]
        choices = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    try:
        spec = gymnasium.spec(env_id)
    except gymnasium.error.Error as error:
        raise UnknownEnvironment(_not_in_module(env_id, choices) if separator else _unknown(env_id)) from error
    # What gymnasium lays around an environment to watch its users is left out: the passive checker only prints advice,
    # and costs as much per step as CartPole itself; nothing here steps before it resets.
    spec = copy.copy(spec)
    spec.order_enforce = False
    return functools.partial(_make_registered, spec)


def prepare(spec: gymnasium.envs.registration.EnvSpec) -> None:
    """Import what makes the environment; if that is MuJoCo, what it has to say goes into the log from now on.

    Raises:
      MissingLibrary: that cannot be imported.
    """
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    if isinstance(spec.entry_point, str):
        try:
            load_env_creator(spec.entry_point)
        except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
            hint = "; pip install 'shoal[mujoco]'" if spec.entry_point.startswith("gymnasium.envs.mujoco") else ""
            told = " ".join(str(error).split())
            raise MissingLibrary(f"{spec.id} needs a library that is not installed: {told}{hint}") from error
    mujoco_log.route()


def _make_registered(spec: gymnasium.envs.registration.EnvSpec, **settings: Any) -> gymnasium.Env[Any, Any]:
    import gymnasium

    prepare(spec)
    return gymnasium.make(spec, disable_env_checker=True, **settings)


def _atari_game(game: str) -> Callable[[], Any]:
    """Raises UnknownEnvironment if there is no such game, or if ALE is not installed."""
    try:
        from ale_py import roms
    except ImportError as error:
        raise UnknownEnvironment(f"{ATARI}{game} needs ale_py: pip install 'shoal[atari]'") from error
    games = roms.get_all_rom_ids()
    if game not in games:
        close = difflib.get_close_matches(game, games, MAX_SUGGESTIONS)
        hint = f" (did you mean {', '.join(ATARI + name for name in close)}?)" if close else ""
        raise UnknownEnvironment(f"unknown environment {ATARI + game!r}{hint}: ALE has {len(games)} games")
    return functools.partial(_own_module("atari").AtariGame, game)


def _register_atari(env_id: str) -> None:
    """ALE's names are known to gymnasium only when they have been registered."""
    import gymnasium

    try:
        import ale_py
    except ImportError as error:
        raise UnknownEnvironment(f"{env_id} needs ale_py: pip install 'shoal[atari]'") from error
    gymnasium.register_envs(ale_py)


def _wrapper(text: str) -> _Wrap:
    """Raises UnknownEnvironment if no wrapper has this name."""
    name, separator, argument = text.partition("=")
    if name in WRAPPERS:
        wrap = getattr(_own_module("wrappers"), WRAPPERS[name])
    elif ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            wrap = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UnknownEnvironment(f"unknown wrapper {name!r}: {error}") from error
        if not callable(wrap):
            raise UnknownEnvironment(f"unknown wrapper {name!r}: a {type(wrap).__name__} is nothing that can be called")
    else:
        close = difflib.get_close_matches(name, WRAPPERS, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UnknownEnvironment(f"unknown wrapper {name!r}{hint}: {', '.join(WRAPPERS)}, or module:attribute")
    try:
        value = json.loads(argument)
    except ValueError:
        value = argument
    _check_argument(name, text, value if separator else None)
    return (lambda env: wrap(env, value)) if separator else wrap


def _check_argument(name: str, text: str, value: Any) -> None:
    """Raises UnknownEnvironment if a wrapper of ours cannot take it."""
    if name in _COUNTING and (type(value) is not int or value < 1):
        raise UnknownEnvironment(f"wrapper {text!r}: {name} needs a whole number of at least 1, as in {name}=4")
    if name == "clip_reward" and value is not None and not (type(value) in (int, float) and 0 < value < math.inf):
        raise UnknownEnvironment(f"wrapper {text!r}: clip_reward takes a number above 0, or nothing for the sign")


def _own_module(name: str) -> Any:
    """A module beside this one that imports gymnasium, which must not happen before an environment is asked for."""
    return importlib.import_module(f"{__package__}.{name}")


def _can_be_made(env_id: str) -> bool:
    """Whether what a registered environment needs is installed: its module can be imported."""
    import gymnasium

    entry_point = gymnasium.registry[env_id].entry_point
    if not isinstance(entry_point, str):  # gymnasium keeps the ids of environments that it has dropped
        return entry_point is not None and not getattr(entry_point, "__name__", "").startswith("_raise")
    try:
        importlib.import_module(entry_point.partition(":")[0])
    except (Exception, SystemExit):  # noqa: BLE001 - whatever keeps it from being imported, it is no suggestion
        return False
    return True


def _not_in_module(env_id: str, choices: Sequence[str]) -> str:
    attribute = env_id.partition(":")[2]
    close = difflib.get_close_matches(attribute, choices, MAX_SUGGESTIONS)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return f"unknown environment {env_id!r}: the module has no callable {attribute!r}{hint} and registers no such id"


def _unknown(env_id: str) -> str:
    import gymnasium

    known = sorted(gymnasium.registry)
    # Version and case are what people get wrong: compare by the bare lower-case name.
    by_name: dict[str, list[str]] = {}
    for name in known:
        by_name.setdefault(name.rpartition("-v")[0].lower(), []).append(name)
    bare = (env_id.rpartition("-v")[0] or env_id).lower()
    matches = difflib.get_close_matches(bare, by_name, MAX_SUGGESTIONS)
    close = [name for match in matches for name in by_name[match] if _can_be_made(name)]
    hint = f" (did you mean {', '.join(close[-MAX_SUGGESTIONS:])}?)" if close else ""
    return (
        f"unknown environment {env_id!r}{hint}: give one of the {len(known)} ids that gymnasium.registry lists "
        f"(CartPole-v1, Acrobot-v1, Pendulum-v1, ...) or module:attribute"
    )
