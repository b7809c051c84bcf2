"""What becomes of exceptions on their way through a Ray cluster."""

from __future__ import annotations

import time

import pytest

import shoal
from shoal import exceptions

pytestmark = pytest.mark.ray

DEADLINE_S = 30


@pytest.fixture(scope="module", autouse=True)
def session():
    with shoal.init(engine="ray", address="local", num_cpus=2, object_store_memory=200_000_000):
        yield


class PickyError(Exception):
    """Its constructor wants something else than what is in ``args``."""

    def __init__(self, code, *, where):
        super().__init__(f"{code} at {where}")
        self.code = code


class RefusesError(Exception):
    def __reduce__(self):
        raise SystemExit("no")


class CannotBeLoadedError(Exception):
    def __reduce__(self):
        return int, ("no number",)


@shoal.remote
def fail(kind, *args, **kwargs):
    raise kind(*args, **kwargs)


@shoal.remote
def take(value):
    return value


@shoal.remote
def ask(refs):
    return shoal.get(refs[0])


@shoal.remote
class Failing:
    def __init__(self, how=None):
        if how is not None:
            raise PickyError(1, where=how)

    def fail(self):
        raise PickyError(2, where="method")

    async def fail_async(self):
        raise PickyError(3, where="coroutine")

    def items(self):
        yield 1
        raise PickyError(4, where="generator")

    async def items_async(self):
        yield 1
        raise PickyError(5, where="generator")


def raised(ref, kind=exceptions.TaskError):
    with pytest.raises(kind) as caught:
        shoal.get(ref, timeout=DEADLINE_S)
    return caught.value


def test_an_exception_comes_whole_and_as_what_it_is():
    error = raised(fail.remote(PickyError, 7, where="home"))
    assert isinstance(error, PickyError)
    assert isinstance(error, exceptions.TaskError)
    assert (error.code, type(error.cause), error.function_name) == (7, PickyError, "fail")
    assert error.pid > 0
    assert error.actor_repr is None
    assert "raise kind(*args, **kwargs)" in str(error)
    assert "7 at home" in str(error)
    assert "work.py" not in str(error)


@pytest.mark.parametrize("kind", [RefusesError, CannotBeLoadedError])
def test_one_that_cannot_travel_is_told_with_its_text(kind):
    error = raised(fail.remote(kind, "the text"))
    assert kind.__name__ in str(error)
    assert "the text" in str(error)


def test_methods_of_every_kind_tell_the_actor():
    actor = Failing.remote()
    for ref, code in (
        (actor.fail.remote(), 2),
        (actor.fail_async.remote(), 3),
        (list(actor.items.remote())[-1], 4),
        (list(actor.items_async.remote())[-1], 5),
    ):
        error = raised(ref, PickyError)
        assert error.code == code
        assert error.actor_repr == "Failing"
        assert error.function_name.startswith("Failing.")


def test_an_actor_whose_constructor_raises_is_dead_with_its_reason():
    error = raised(Failing.remote("birth").fail.remote(), exceptions.ActorDiedError)
    assert error.actor_init_failed
    assert "1 at birth" in str(error)
    assert "work.py" not in str(error)


def test_a_failed_argument_fails_what_takes_it_as_what_it_is():
    error = raised(take.remote(take.remote(fail.remote(PickyError, 8, where="far"))), PickyError)
    assert error.code == 8
    assert error.function_name == "take"
    assert "input arguments" in str(error)
    assert "8 at far" in str(error)


def test_what_get_raises_in_a_task_goes_on_to_who_asked():
    error = raised(ask.remote([fail.remote(PickyError, 9, where="below")]), PickyError)
    assert error.code == 9
    assert error.function_name == "ask"
    assert "9 at below" in str(error)
    assert "in ask" in str(error)


def test_a_failed_generator_can_be_waited_for():
    generator = Failing.remote().items.remote()
    first = next(generator)
    assert shoal.get(first, timeout=DEADLINE_S) == 1
    assert shoal.wait([generator], timeout=DEADLINE_S) == ([generator], [])
    assert raised(next(generator), PickyError).code == 4
    assert list(generator) == []


def test_refs_inside_an_exception_are_good_where_it_arrives():
    class CarryingError(Exception):
        def __init__(self, ref):
            super().__init__("look inside")
            self.ref = ref

    @shoal.remote
    def carry():
        raise CarryingError(shoal.put(bytes(300_000)))

    assert shoal.get(raised(carry.remote()).ref, timeout=DEADLINE_S) == bytes(300_000)


def test_retries_look_at_what_was_raised(tmp_path):
    @shoal.remote(max_retries=2)
    def flaky(kind):
        with (tmp_path / kind.__name__).open("a") as file:
            file.write("x")
        raise kind("again")

    for given, kind, runs in ((True, KeyError, 3), ([OSError], ConnectionError, 3), ([OSError], ValueError, 1)):
        raised(flaky.options(retry_exceptions=given).remote(kind), kind)
        assert (tmp_path / kind.__name__).read_text() == "x" * runs


def test_a_result_that_cannot_be_pickled_is_told_to_who_asks():
    @shoal.remote
    def lock():
        import threading

        return threading.Lock()

    assert "lock" in str(raised(lock.remote(), TypeError))


def test_a_cancelled_task_is_neither_an_error_of_the_user_nor_of_ray(tmp_path):
    @shoal.remote
    def long():
        (tmp_path / "begun").touch()
        while True:
            time.sleep(0.01)

    ref = long.remote()
    deadline = time.monotonic() + DEADLINE_S
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    shoal.cancel(ref)
    error = raised(ref, exceptions.TaskCancelledError)
    assert not isinstance(error, exceptions.TaskError)
