"""Actors: state, order, errors, names, handles, ends."""

from __future__ import annotations

import os
import signal
import time

import pytest

import shoal
from shoal import exceptions
from shoal.core.engines import current
from shoal.core.engines.inline.engine import InlineEngine

DEADLINE_S = 30
#: What is said on a Ray cluster of a process that is gone.
ON_RAY = "its worker process has died"


@shoal.remote
class Counter:
    def __init__(self, start=0):
        self.value = start
        self.seen = []

    def add(self, by=1):
        self.value += by
        return self.value

    def see(self, item):
        self.seen.append(item)

    def all_seen(self):
        return self.seen

    def pid(self):
        return os.getpid()

    def fail(self):
        raise KeyError("missing")

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def static():
        return "static"


def eventually(condition, what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        shoal.wait([shoal.put(None)], timeout=0)
        time.sleep(0.02)


def test_an_actor_keeps_its_state():
    counter = Counter.remote(10)
    assert shoal.get([counter.add.remote(), counter.add.remote(5)], timeout=DEADLINE_S) == [11, 16]
    assert shoal.get(counter.static.remote(), timeout=DEADLINE_S) == "static"


def test_calls_of_one_caller_run_in_order_even_when_an_argument_is_late():
    @shoal.remote
    def late(value):
        time.sleep(0.3)
        return value

    counter = Counter.remote()
    counter.see.remote(0)
    counter.see.remote(late.remote(1))
    for i in range(2, 300):
        counter.see.remote(i)
    assert shoal.get(counter.all_seen.remote(), timeout=DEADLINE_S) == list(range(300))


def test_an_error_in_a_method_leaves_the_actor_alive():
    counter = Counter.remote()
    with pytest.raises(KeyError, match="missing") as caught:
        shoal.get(counter.fail.remote(), timeout=DEADLINE_S)
    assert "Counter.fail" in str(caught.value)
    assert shoal.get(counter.add.remote(), timeout=DEADLINE_S) == 1


def test_an_error_in_init_is_told_to_every_call():
    @shoal.remote
    class Broken:
        def __init__(self):
            raise RuntimeError("no such file: settings")

        def method(self):
            return 1

    broken = Broken.remote()
    for _ in range(2):
        with pytest.raises(exceptions.ActorDiedError, match="no such file: settings") as caught:
            shoal.get(broken.method.remote(), timeout=DEADLINE_S)
    assert caught.value.actor_init_failed


def test_a_failed_argument_of_init_is_told_to_every_call():
    @shoal.remote
    def fail():
        raise KeyError("argument")

    counter = Counter.remote(fail.remote())
    for _ in range(2):
        with pytest.raises(shoal.exceptions.ActorDiedError, match="KeyError: 'argument'") as caught:
            shoal.get(counter.add.remote(), timeout=DEADLINE_S)
        assert caught.value.actor_init_failed


def test_a_concurrency_group_that_an_actor_has_not_is_an_error():
    with pytest.raises(ValueError, match="no concurrency group 'io'"):
        shoal.get(Counter.remote().add.options(concurrency_group="io").remote(), timeout=DEADLINE_S)


def test_out_of_order_execution_may_be_allowed_and_can_be_refused_by_serial_actors_only():
    allowed = Counter.options(allow_out_of_order_execution=True).remote()
    assert shoal.get(allowed.add.remote(), timeout=DEADLINE_S) == 1
    with pytest.raises(ValueError, match="one call at a time"):
        Counter.options(allow_out_of_order_execution=False, max_concurrency=2).remote()


def test_a_failed_argument_of_a_call_fails_that_call_only():
    @shoal.remote
    def fail():
        raise KeyError("argument")

    counter = Counter.remote()
    bad, good = counter.add.remote(fail.remote()), counter.add.remote()
    with pytest.raises(KeyError, match="argument"):
        shoal.get(bad, timeout=DEADLINE_S)
    assert shoal.get(good, timeout=DEADLINE_S) == 1


@pytest.mark.not_inline("kills its process")
def test_the_death_of_an_actor_fails_its_calls_with_the_signal():
    counter = Counter.remote()
    shoal.get(counter.add.remote(), timeout=DEADLINE_S)
    with pytest.raises(exceptions.ActorDiedError, match=f"SIGKILL|{ON_RAY}"):
        shoal.get(counter.die.remote(), timeout=DEADLINE_S)
    with pytest.raises(exceptions.RayActorError, match="Counter"):
        shoal.get(counter.add.remote(), timeout=DEADLINE_S)


@pytest.mark.not_inline("looks for the process, and needs a call that is still running")
def test_kill_ends_the_process_and_is_told_to_calls_under_way(has_ended):
    @shoal.remote
    class Sleeper:
        def pid(self):
            return os.getpid()

        def sleep(self):
            time.sleep(60)

    sleeper = Sleeper.remote()
    pid = shoal.get(sleeper.pid.remote(), timeout=DEADLINE_S)
    running = sleeper.sleep.remote()
    shoal.kill(sleeper)
    with pytest.raises(exceptions.ActorDiedError, match="kill"):
        shoal.get(running, timeout=DEADLINE_S)
    eventually(lambda: has_ended(pid), "its process has ended")
    shoal.kill(sleeper)  # a dead actor: nothing happens


@pytest.mark.not_on_ray("there a kill goes by the head of the cluster, and a call straight to the actor may win")
def test_no_call_after_kill_slips_through():
    for _ in range(20):
        counter = Counter.remote()
        shoal.get(counter.add.remote(), timeout=DEADLINE_S)
        shoal.kill(counter)
        with pytest.raises(exceptions.ActorDiedError, match="killed by kill"):
            shoal.get(counter.add.remote(), timeout=DEADLINE_S)


@pytest.mark.not_inline("looks for the process")
def test_an_actor_leaves_when_its_last_handle_goes_and_not_before(has_ended):
    @shoal.remote
    class Holder:
        def hold(self, handle):
            self.handle = handle

        def add(self):
            return shoal.get(self.handle.add.remote())

        def drop(self):
            self.handle = None

    holder, counter = Holder.remote(), Counter.remote()
    pid = shoal.get(counter.pid.remote(), timeout=DEADLINE_S)
    shoal.get(holder.hold.remote(counter), timeout=DEADLINE_S)
    del counter
    assert shoal.get(holder.add.remote(), timeout=DEADLINE_S) == 1
    assert shoal.get(holder.add.remote(), timeout=DEADLINE_S) == 2
    assert not has_ended(pid)
    shoal.get(holder.drop.remote(), timeout=DEADLINE_S)
    eventually(lambda: has_ended(pid), "the last handle has gone")


def test_a_named_actor_can_be_found_until_its_last_handle_goes():
    @shoal.remote
    class Holder:
        def hold(self, handle):
            self.handle = handle

        def drop(self):
            self.handle = None

    holder, counter = Holder.remote(), Counter.options(name="held").remote()
    shoal.get(holder.hold.remote(counter), timeout=DEADLINE_S)
    del counter
    found = shoal.get_actor("held")
    assert shoal.get(found.add.remote(), timeout=DEADLINE_S) == 1
    shoal.get(holder.drop.remote(), timeout=DEADLINE_S)
    eventually(lambda: _name_is_free("held"), "the last handle has gone")
    with pytest.raises(exceptions.ActorDiedError, match=r"last handle|all references to the actor were removed"):
        shoal.get(found.add.remote(), timeout=DEADLINE_S)


def test_calls_under_way_keep_an_actor_alive():
    counter = Counter.remote()
    refs = [counter.add.remote() for _ in range(100)]
    del counter
    assert shoal.get(refs, timeout=DEADLINE_S) == list(range(1, 101))


def perish():
    """End the process that runs this; on the inline engine, what stands for it."""
    if isinstance(current.engine(), InlineEngine):
        raise SystemExit(9)
    os.kill(os.getpid(), signal.SIGKILL)


@shoal.remote
class Fragile:
    """Keeps a count in memory and one on disk; dies when told to."""

    def __init__(self, log):
        self.log = log
        self.count = 0
        self.write("start")

    def write(self, line):
        with self.log.open("a") as file:
            file.write(f"{line}\n")

    def add(self, item):
        self.write(item)
        self.count += 1
        return self.count

    def die(self):
        perish()

    def die_once(self, marker):
        self.write("die_once")
        if not marker.exists():
            marker.touch()
            perish()
        return "survived"

    @shoal.method(num_returns=2, retry_exceptions=True, max_task_retries=3)
    def flaky(self, marker):
        self.write("flaky")
        if not marker.exists():
            marker.touch()
            raise ConnectionError("try again")
        return 1, 2


def test_an_actor_restarts_with_its_arguments_and_without_its_state(tmp_path):
    log = tmp_path / "log"
    fragile = Fragile.options(max_restarts=1).remote(log)
    assert shoal.get(fragile.add.remote("a"), timeout=DEADLINE_S) == 1
    with pytest.raises(exceptions.ActorUnavailableError, match=r"SIGKILL|exit code 9|temporarily unavailable"):
        shoal.get(fragile.die.remote(), timeout=DEADLINE_S)
    add = fragile.add.options(max_task_retries=-1)  # on Ray a call is lost that comes while the actor restarts
    assert shoal.get(add.remote("b"), timeout=DEADLINE_S) == 1
    with pytest.raises(exceptions.ActorDiedError, match=f"after 1 restarts|{ON_RAY}"):
        shoal.get(fragile.die.remote(), timeout=DEADLINE_S)
    assert log.read_text().split() == ["start", "a", "start", "b"]


def test_calls_run_at_most_once_unless_told_otherwise(tmp_path):
    log = tmp_path / "log"
    fragile = Fragile.options(max_restarts=-1).remote(log)
    with pytest.raises(exceptions.ActorUnavailableError):
        shoal.get(fragile.die_once.remote(tmp_path / "marker"), timeout=DEADLINE_S)
    assert shoal.get(fragile.add.options(max_task_retries=-1).remote("next"), timeout=DEADLINE_S) == 1
    assert log.read_text().split() == ["start", "die_once", "start", "next"]


@pytest.mark.not_on_ray("Ray makes calls that it retries in any order")
def test_calls_with_retries_run_again_in_their_order_after_a_restart(tmp_path):
    log = tmp_path / "log"
    fragile = Fragile.options(max_restarts=-1, max_task_retries=2).remote(log)
    refs = [fragile.die_once.remote(tmp_path / "marker"), *(fragile.add.remote(str(i)) for i in range(20))]
    assert shoal.get(refs, timeout=DEADLINE_S) == ["survived", *range(1, 21)]
    after = log.read_text().split("start\n")[-1].split()
    assert after == ["die_once", *(str(i) for i in range(20))]


def test_a_method_may_be_retried_after_exceptions(tmp_path):
    fragile = Fragile.remote(tmp_path / "log")
    assert shoal.get(fragile.flaky.remote(tmp_path / "marker"), timeout=DEADLINE_S) == [1, 2]
    again = fragile.flaky.options(retry_exceptions=False, num_returns=1).remote(tmp_path / "other")
    with pytest.raises(ConnectionError, match="try again"):
        shoal.get(again, timeout=DEADLINE_S)


def test_kill_without_no_restart_uses_up_a_restart(tmp_path):
    fragile = Fragile.options(max_restarts=1).remote(tmp_path / "log")
    shoal.get(fragile.add.remote("a"), timeout=DEADLINE_S)
    shoal.kill(fragile, no_restart=False)
    eventually(lambda: (tmp_path / "log").read_text().split().count("start") == 2, "it has restarted")
    assert shoal.get(fragile.add.options(max_task_retries=-1).remote("b"), timeout=DEADLINE_S) == 1
    shoal.kill(fragile)
    with pytest.raises(exceptions.ActorDiedError):
        shoal.get(fragile.add.remote("c"), timeout=DEADLINE_S)


def test_named_actors_are_found_by_name_and_namespace_until_they_die():
    counter = Counter.options(name="tally").remote(5)
    assert shoal.get(shoal.get_actor("tally").add.remote(), timeout=DEADLINE_S) == 6
    with pytest.raises(ValueError, match="tally"):
        Counter.options(name="tally").remote()
    again = Counter.options(name="tally", get_if_exists=True).remote(100)
    assert shoal.get(again.add.remote(), timeout=DEADLINE_S) == 7
    assert again == counter
    with pytest.raises(ValueError, match="elsewhere"):
        shoal.get_actor("tally", namespace="elsewhere")
    shoal.kill(counter)
    eventually(lambda: _name_is_free("tally"), "a dead actor's name is free")
    assert shoal.get(Counter.options(name="tally").remote(1).add.remote(), timeout=DEADLINE_S) == 2


def _name_is_free(name: str) -> bool:
    try:
        shoal.get_actor(name)
    except ValueError:
        return True
    return False


def test_handles_work_in_tasks():
    @shoal.remote
    def add_twice(counter):
        return shoal.get([counter.add.remote(), counter.add.remote()])

    assert shoal.get(add_twice.remote(Counter.remote()), timeout=DEADLINE_S) == [1, 2]


def unnamed(method):
    """A decorator that does not say what it stands for."""

    def wrapper(*args, **kwargs):
        return method(*args, **kwargs)

    return wrapper


@shoal.remote
class Decorated:
    @unnamed
    def add(self, a, b=1):
        return a + b

    @staticmethod
    def named_like_it(self, a):  # noqa: PLW0211  a user's
        return self + a


def test_methods_may_have_their_object_among_args_and_parameters_any_name():
    actor = Decorated.remote()
    assert shoal.get(actor.add.remote(1, b=2), timeout=DEADLINE_S) == 3
    assert shoal.get(actor.add.remote(1), timeout=DEADLINE_S) == 2
    assert shoal.get(actor.named_like_it.remote(1, 2), timeout=DEADLINE_S) == 3
    with pytest.raises(TypeError):
        shoal.get(actor.add.remote(), timeout=DEADLINE_S)


def test_a_handle_may_be_used_elsewhere_before_the_actor_is_there():
    @shoal.remote
    def slow_start():
        time.sleep(0.3)
        return 40

    @shoal.remote
    def use(counter):
        return shoal.get(counter.add.remote(2))

    counter = Counter.remote(slow_start.remote())
    assert shoal.get(use.remote(counter), timeout=DEADLINE_S) == 42


@pytest.mark.not_on_ray("a cluster may grow: there it waits, who waits for it is told (ray_cluster/test_demands.py)")
def test_an_actor_that_can_never_be_placed_fails_its_calls():
    with pytest.raises(exceptions.ActorUnschedulableError, match="GPU"):
        shoal.get(Counter.options(num_gpus=4).remote().add.remote(), timeout=DEADLINE_S)


def test_an_actor_with_cpus_holds_them_and_gives_them_back():
    counter = Counter.options(num_cpus=2).remote()
    shoal.get(counter.add.remote(), timeout=DEADLINE_S)

    @shoal.remote
    def task():
        return 1

    blocked = task.remote()
    assert shoal.wait([blocked], timeout=0.3) == ([], [blocked])
    del counter
    assert shoal.get(blocked, timeout=DEADLINE_S) == 1


def test_the_actors_of_a_killed_actor_die_with_it():
    @shoal.remote
    class Parent:
        def child(self):
            self.kept = Counter.remote()
            return self.kept

    parent = Parent.remote()
    child = shoal.get(parent.child.remote(), timeout=DEADLINE_S)
    assert shoal.get(child.add.remote(), timeout=DEADLINE_S) == 1
    shoal.kill(parent)
    eventually(lambda: _is_dead(child), "the child has died with its creator")
    with pytest.raises(exceptions.ActorDiedError, match=r"created it|its owner has died"):
        shoal.get(child.add.remote(), timeout=DEADLINE_S)


def _is_dead(counter: shoal.ActorHandle) -> bool:
    try:
        shoal.get(counter.add.remote(), timeout=DEADLINE_S)
    except exceptions.ActorDiedError:
        return True
    return False


@pytest.mark.not_inline("looks for the process")
def test_an_actor_that_owns_actors_takes_them_along(has_ended):
    @shoal.remote
    class Parent:
        def __init__(self):
            self.child = Counter.remote()

        def child_pid(self):
            return shoal.get(self.child.pid.remote())

    parent = Parent.remote()
    pid = shoal.get(parent.child_pid.remote(), timeout=DEADLINE_S)
    shoal.kill(parent)
    eventually(lambda: has_ended(pid), "the child has ended with its creator")


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Counter(), TypeError, "instantiated directly"),
        (lambda: Counter.remote(1, 2), TypeError, "too many positional"),
        (lambda: Counter.options(max_pending_calls=-2), ValueError, "at least -1"),
        (lambda: Counter.remote().add.options(num_returns="streams"), ValueError, "streaming"),
        (lambda: Counter.options(max_restarts=-2), ValueError, "max_restarts"),
        (lambda: Counter.remote().add.options(num_returns=-1), ValueError, "num_returns"),
        (lambda: Counter.remote().add.options(name="x"), ValueError, "name"),
        (lambda: Counter.options(name=""), ValueError, "empty"),
        (lambda: Counter.options(get_if_exists=True), ValueError, "name"),
        (lambda: Counter.options(lifetime="long"), ValueError, "lifetime"),
        (lambda: shoal.kill("x"), ValueError, "actor handle"),
        (lambda: shoal.get_actor(""), ValueError, "name"),
        (lambda: Counter.remote().nothing, AttributeError, "nothing"),
        (lambda: Counter.remote().add(), TypeError, "called directly"),
        (lambda: Counter.remote().add.remote(1, 2), TypeError, "too many positional"),
    ],
)
def test_mistakes_are_told_at_the_call_site(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.not_inline("needs a task that is still running")
def test_an_actor_killed_before_its_arguments_are_there_never_starts(tmp_path):
    @shoal.remote
    def late():
        time.sleep(0.3)
        return tmp_path / "started"

    @shoal.remote
    class Starter:
        def __init__(self, marker):
            marker.touch()

        def method(self):
            return 1

    argument = late.remote()
    starter = Starter.remote(argument)
    shoal.kill(starter)
    with pytest.raises(exceptions.ActorDiedError):
        shoal.get(starter.method.remote(), timeout=DEADLINE_S)
    marker = shoal.get(argument, timeout=DEADLINE_S)
    time.sleep(0.2)  # were it to start, it would have by now
    assert not marker.exists()


def test_a_handle_of_an_earlier_session_is_told_from_a_dead_actor(session):
    old = Counter.remote()
    shoal.get(old.add.remote(), timeout=DEADLINE_S)
    shoal.shutdown()
    shoal.init(num_cpus=2, object_store_memory=512 * 1024 * 1024, engine=session, address="local")
    with pytest.raises(exceptions.ActorHandleNotFoundError, match="not known to this session"):
        shoal.kill(old)
    dead = Counter.remote()
    shoal.kill(dead)
    shoal.kill(dead)  # nothing more happens


@shoal.remote
def kill_it(actor):
    shoal.kill(actor)


def test_an_actor_can_be_killed_by_a_process_that_has_never_called_it():
    actor = Counter.remote()
    shoal.get(kill_it.remote(actor), timeout=DEADLINE_S)

    def is_dead():  # another's kill goes by the head, our call straight to the actor: it may win
        try:
            shoal.get(actor.add.remote(), timeout=DEADLINE_S)
        except exceptions.ActorDiedError:
            return True
        return False

    eventually(is_dead, "a kill by another process is noticed")
