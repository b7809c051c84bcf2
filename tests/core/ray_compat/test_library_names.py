"""The small names that libraries import from Ray."""

from __future__ import annotations

import pytest

import shoal
from shoal.util import annotations, get_node_ip_address, list_named_actors, log_once


def test_decorators_change_nothing():
    @annotations.PublicAPI
    def one():
        return 1

    @annotations.DeveloperAPI(stability="alpha")
    class Two:
        pass

    assert one() == 1
    assert Two.__name__ == "Two"


def test_log_once_is_true_once():
    assert log_once("a key of this test")
    assert not log_once("a key of this test")


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_named_actors_are_listed(engine):
    @shoal.remote(num_cpus=0)
    class Named:
        def ready(self):
            return True

    with shoal.init(num_cpus=1, namespace="here", engine=engine):
        actors = [Named.options(name="one").remote(), Named.options(name="two", namespace="there").remote()]
        shoal.get([actor.ready.remote() for actor in actors], timeout=30)
        assert list_named_actors() == ["one"]
        assert sorted(list_named_actors(all_namespaces=True), key=lambda row: row["name"]) == [
            {"name": "one", "namespace": "here"},
            {"name": "two", "namespace": "there"},
        ]
        assert get_node_ip_address() == shoal.nodes()[0]["NodeManagerAddress"]


def test_ray_programs_find_their_names():
    from shoal.actor import ActorClass, ActorHandle, exit_actor  # noqa: F401
    from shoal.cloudpickle import dumps, loads
    from shoal.remote_function import RemoteFunction
    from shoal.runtime_context import RuntimeContext  # noqa: F401
    from shoal.types import ObjectRef

    assert loads(dumps(3)) == 3
    assert isinstance(shoal.remote(dumps), RemoteFunction)
    assert ObjectRef is shoal.ObjectRef
    assert (shoal.SCRIPT_MODE, shoal.WORKER_MODE) == (0, 1)


def test_inheriting_from_an_actor_class_is_told():
    @shoal.remote
    class Base:
        pass

    with pytest.raises(shoal.actor.ActorClassInheritanceException, match="inherit from plain Base"):

        class Derived(Base):
            pass
