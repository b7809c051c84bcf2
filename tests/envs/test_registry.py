import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

from shoal.envs import registry
from shoal.envs.copies import EnvCopy
from shoal.envs.probes import Corridor


def test_a_gymnasium_id_is_made_with_its_time_limit():
    env = registry.make("CartPole-v1")
    assert env.spec is not None
    assert env.spec.id == "CartPole-v1"
    assert env.spec.max_episode_steps == 500


def test_nothing_that_watches_its_users_is_laid_around_an_environment():
    env, wrappers = registry.make("CartPole-v1"), []
    while env is not env.unwrapped:
        wrappers.append(type(env).__name__)
        env = env.env
    assert wrappers == ["TimeLimit"]


def test_module_and_attribute_name_an_environment_that_is_not_registered():
    assert isinstance(registry.make("shoal.envs.probes:Corridor"), Corridor)


def test_checking_a_name_does_not_construct_the_environment():
    registry.check("shoal.envs.probes:FailsToStart")
    with pytest.raises(OSError, match="level file"):
        registry.make("shoal.envs.probes:FailsToStart")


def test_a_module_that_cannot_be_imported_tells_why_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise ZeroDivisionError('at import,\\nof all times')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(registry.UnknownEnvironment, match="raised ZeroDivisionError: at import, of all times"):
        registry.check("broken_module:Env")


def test_a_module_that_wants_to_leave_at_import_is_told_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "leaving_module.py").write_text("import sys\nsys.exit('needs a licence')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(registry.UnknownEnvironment, match="'leaving_module' raised SystemExit: needs a licence"):
        registry.check("leaving_module:Env")


def test_a_missing_attribute_is_told_as_that():
    with pytest.raises(registry.UnknownEnvironment, match="'sys:': name a class or function behind the colon"):
        registry.check("sys:")


def test_only_environments_that_can_be_made_are_suggested(monkeypatch):
    import gymnasium

    absent = EnvSpec("needs_it/CartPole-v7", entry_point="no_such_package_of_this_test.games:Maze")
    monkeypatch.setitem(gymnasium.registry, absent.id, absent)
    with pytest.raises(registry.UnknownEnvironment, match=r"CartPole-v1\?\)") as caught:
        registry.check("needs_it/CartPole-v6")
    assert "CartPole-v7" not in str(caught.value)


def test_where_the_valid_names_are_is_told_whether_one_is_close_or_not():
    for name in ("CartPol-v1", "Nothing-like-it"):
        with pytest.raises(registry.UnknownEnvironment, match=r"one of the \d+ ids that gymnasium.registry lists"):
            registry.check(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("CartPole-v77", "CartPole-v1"),
        ("Nothing-like-it", "gymnasium.registry"),
        ("no_such_module:Thing", "no module 'no_such_module'"),
        ("shoal.envs.probes:Corridoor", r"no callable 'Corridoor' \(did you mean Corridor or EndlessCorridor\?\)"),
        ("shoal.envs.probes:Zzz", "no callable 'Zzz' and registers no such id"),
        ("shoal.envs.probes:", "name a class or function behind the colon"),
        (":Maze", "name a module before the colon"),
    ],
)
def test_an_unknown_name_gets_one_line_that_helps(name, told):
    with pytest.raises(registry.UnknownEnvironment, match=told) as caught:
        registry.check(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry_point", "told"),
    [
        ("not_there.games:Maze", "Lacking-v0 needs a library that is not installed: No module named 'not_there'$"),
        ("gymnasium.envs.mujoco.not_there:Maze", r"not installed: No module named .*; pip install 'shoal\[mujoco\]'$"),
        ("needs_more:Maze", r"Lacking-v0 needs a library that is not installed: Box2D is not there, pip install it$"),
    ],
)
def test_a_registered_environment_whose_library_is_missing_is_told_in_one_line(
    entry_point, told, tmp_path, monkeypatch
):
    (tmp_path / "needs_more.py").write_text(
        "from gymnasium.error import DependencyNotInstalled as Lacking\n"
        "raise Lacking('Box2D is not there,\\npip install it')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(gymnasium.registry, "Lacking-v0", EnvSpec("Lacking-v0", entry_point=entry_point))
    registry.check("Lacking-v0")
    with pytest.raises(registry.MissingLibrary, match=told):
        registry.make("Lacking-v0")
    with pytest.raises(registry.MissingLibrary, match=told):
        EnvCopy(lambda: registry.make("Lacking-v0"), 0)
