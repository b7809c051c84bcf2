"""cancel: work that waits, that runs, that has others under it."""

from __future__ import annotations

import asyncio
import time

import pytest

import shoal
from shoal.exceptions import TaskCancelledError, WorkerCrashedError

DEADLINE_S = 30.0
#: What a task gets that is cancelled by force.
ENDED = {"native": WorkerCrashedError, "ray": TaskCancelledError}


@shoal.remote
def forever(started=None):
    if started is not None:
        open(started, "w").close()
    while True:
        time.sleep(0.01)


@shoal.remote
def one():
    return 1


def appeared(path):
    deadline = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} has not appeared"
        time.sleep(0.01)


def is_cancelled(ref, text="was cancelled"):
    """Ray does not tell what it was cancelled from."""
    with pytest.raises(TaskCancelledError, match=f"{text}|^the task was cancelled"):
        shoal.get(ref, timeout=DEADLINE_S)


def test_what_has_finished_stays_as_it_is():
    ref = one.remote()
    assert shoal.get(ref, timeout=DEADLINE_S) == 1
    shoal.cancel(ref)
    shoal.cancel(ref, force=True)
    assert shoal.get(ref, timeout=DEADLINE_S) == 1


def test_only_refs_can_be_cancelled():
    with pytest.raises(TypeError, match="ObjectRef"):
        shoal.cancel("x")


def test_a_put_object_is_no_work():
    ref = shoal.put(1)
    shoal.cancel(ref)
    assert shoal.get(ref, timeout=DEADLINE_S) == 1


def test_a_keyboard_interrupt_of_the_task_itself_is_a_cancellation():
    @shoal.remote
    class Actor:
        async def interrupted(self):
            raise asyncio.CancelledError

    is_cancelled(Actor.remote().interrupted.remote())


def test_is_canceled_is_for_calls_of_actors():
    with pytest.raises(RuntimeError, match="method of an actor"):
        shoal.get_runtime_context().is_canceled()


@pytest.mark.not_inline("needs a task that is still running")
class TestRunningWork:
    def test_a_task_that_runs_is_interrupted(self, tmp_path):
        ref = forever.remote(tmp_path / "started")
        appeared(tmp_path / "started")
        shoal.cancel(ref)
        is_cancelled(ref, "while it ran")
        assert shoal.get(one.remote(), timeout=DEADLINE_S) == 1, "its worker goes on"

    def test_a_task_that_waits_for_another_is_interrupted(self, tmp_path):
        @shoal.remote
        def parent(started):
            return shoal.get(forever.remote(started))

        ref = parent.remote(tmp_path / "started")
        appeared(tmp_path / "started")
        shoal.cancel(ref)
        is_cancelled(ref)
        deadline = time.monotonic() + DEADLINE_S
        total = shoal.cluster_resources()["CPU"]
        while shoal.available_resources().get("CPU") != total:  # the child has been cancelled with it
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def test_without_recursion_the_child_goes_on(self, tmp_path):
        @shoal.remote
        def child(started, go_on, done):
            open(started, "w").close()
            while not go_on.exists():
                time.sleep(0.01)
            open(done, "w").close()

        @shoal.remote
        def parent(*paths):
            return shoal.get(child.remote(*paths))

        started, go_on, done = tmp_path / "started", tmp_path / "go on", tmp_path / "done"
        ref = parent.remote(started, go_on, done)
        appeared(started)
        shoal.cancel(ref, recursive=False)
        is_cancelled(ref)
        go_on.touch()
        appeared(done)

    def test_many_tasks_that_wait_for_a_cpu_never_run(self, tmp_path):
        blockers = [forever.remote(tmp_path / f"{n}") for n in range(int(shoal.cluster_resources()["CPU"]))]
        for n in range(len(blockers)):
            appeared(tmp_path / f"{n}")
        waiting = [forever.remote(tmp_path / f"waiting {n}") for n in range(1000)]
        kept = one.remote()
        for ref in waiting:
            shoal.cancel(ref)
        for ref in waiting:
            is_cancelled(ref, "before it began")
        for ref in blockers:
            shoal.cancel(ref)
        assert shoal.get(kept, timeout=DEADLINE_S) == 1
        assert not list(tmp_path.glob("waiting*"))

    def test_a_task_that_waits_for_its_arguments_never_runs(self, tmp_path):
        argument = forever.remote(tmp_path / "argument")
        ref = forever.remote(argument)
        appeared(tmp_path / "argument")
        shoal.cancel(ref)
        is_cancelled(ref, "before it began")
        shoal.cancel(argument)
        is_cancelled(argument)

    def test_force_ends_the_process(self, tmp_path, session):
        @shoal.remote
        def stubborn(started):
            while True:
                try:
                    open(started, "w").close()
                    while True:
                        time.sleep(0.01)
                except KeyboardInterrupt:
                    pass

        ref = stubborn.remote(tmp_path / "started")
        appeared(tmp_path / "started")
        shoal.cancel(ref, force=True)
        with pytest.raises(ENDED[session], match=r"it was cancelled|the task was cancelled"):
            shoal.get(ref, timeout=DEADLINE_S)

    def test_force_ends_a_process_that_never_lets_go_of_the_interpreter(self, tmp_path, session):
        @shoal.remote
        def busy(started):
            open(started, "w").close()
            sum(iter(int, 1))  # one call in C, for ever

        ref = busy.remote(tmp_path / "started")
        appeared(tmp_path / "started")
        shoal.cancel(ref, force=True)
        with pytest.raises(ENDED[session]):
            shoal.get(ref, timeout=DEADLINE_S)

    def test_a_cancelled_task_is_not_retried(self, tmp_path):
        @shoal.remote(max_retries=5, retry_exceptions=True)
        def counted(log):
            with open(log, "a") as file:
                file.write("run\n")
            while True:
                time.sleep(0.01)

        ref = counted.remote(tmp_path / "log")
        appeared(tmp_path / "log")
        shoal.cancel(ref)
        is_cancelled(ref)
        time.sleep(0.2)
        assert (tmp_path / "log").read_text() == "run\n"

    def test_a_borrower_can_cancel(self, tmp_path):
        @shoal.remote
        def cancel(refs):
            shoal.cancel(refs[0])

        ref = forever.remote(tmp_path / "started")
        appeared(tmp_path / "started")
        shoal.get(cancel.options(num_cpus=0).remote([ref]), timeout=DEADLINE_S)
        is_cancelled(ref)

    def test_a_generator_is_cancelled_between_two_items(self):
        @shoal.remote
        def count():
            number = 0
            while True:
                yield number
                number += 1
                time.sleep(0.01)

        generator = count.remote()
        assert shoal.get(next(generator), timeout=DEADLINE_S) == 0
        shoal.cancel(generator)
        refs = list(generator)
        is_cancelled(refs[-1])

    @pytest.mark.not_on_ray("Ray 2.60 may end the driver then: 'Tried to complete task that was not pending'")
    def test_a_task_that_ends_as_it_is_cancelled_has_one_end_or_the_other(self):
        @shoal.remote
        def short(duration_s):
            time.sleep(duration_s)
            return "done"

        for attempt in range(100):
            ref = short.remote(attempt % 10 * 0.0003)
            time.sleep(attempt % 7 * 0.0005)
            shoal.cancel(ref)
            try:
                assert shoal.get(ref, timeout=DEADLINE_S) == "done"
            except TaskCancelledError:
                pass
            assert shoal.get(one.remote(), timeout=DEADLINE_S) == 1


@pytest.mark.not_inline("needs a call that is still running")
class TestCallsOfActors:
    @pytest.mark.not_on_ray("Ray drops a call when its turn comes, and tells nobody before whether it will")
    def test_a_queued_call_is_dropped_and_those_behind_it_run(self, tmp_path):
        @shoal.remote
        class Actor:
            def wait_for(self, path):
                while not path.exists():
                    time.sleep(0.01)

            def touch(self, path):
                path.touch()

        actor = Actor.remote()
        shoal.get(actor.__ray_ready__.remote(), timeout=DEADLINE_S)
        first = actor.wait_for.remote(tmp_path / "go")
        dropped = actor.touch.remote(tmp_path / "dropped")
        behind = actor.touch.remote(tmp_path / "behind")
        shoal.cancel(dropped)
        is_cancelled(dropped)
        (tmp_path / "go").touch()
        shoal.get([first, behind], timeout=DEADLINE_S)
        assert (tmp_path / "behind").exists()
        assert not (tmp_path / "dropped").exists()

    def test_a_call_that_waits_for_its_arguments_does_not_hold_up_the_others(self, tmp_path):
        @shoal.remote
        class Actor:
            def echo(self, value):
                return value

        actor = Actor.remote()
        never = forever.remote(tmp_path / "started")
        dropped, behind = actor.echo.remote(never), actor.echo.remote(2)
        shoal.cancel(dropped)
        is_cancelled(dropped)
        assert shoal.get(behind, timeout=DEADLINE_S) == 2
        shoal.cancel(never)

    def test_a_call_that_runs_is_told(self, tmp_path):
        @shoal.remote
        class Actor:
            def work(self, started):
                context = shoal.get_runtime_context()
                started.touch()
                while not context.is_canceled():
                    time.sleep(0.01)
                return "told"

            def is_canceled(self):
                return shoal.get_runtime_context().is_canceled()

        actor = Actor.remote()
        ref = actor.work.remote(tmp_path / "started")
        appeared(tmp_path / "started")
        shoal.cancel(ref)
        is_cancelled(ref)
        assert shoal.get(actor.is_canceled.remote(), timeout=DEADLINE_S) is False, "the next call is another one"

    @pytest.mark.not_on_ray("Ray drops a call when its turn comes, and tells nobody before whether it will")
    def test_a_coroutine_is_cancelled_while_it_runs_and_while_it_waits_for_its_turn(self, tmp_path):
        @shoal.remote(max_concurrency=1)
        class Actor:
            async def sleep(self, started):
                started.touch()
                await asyncio.sleep(1000)

            async def one(self):
                return 1

        actor = Actor.remote()
        running = actor.sleep.remote(tmp_path / "running")
        appeared(tmp_path / "running")
        waiting = actor.sleep.remote(tmp_path / "waiting")
        shoal.cancel(waiting)
        is_cancelled(waiting)
        shoal.cancel(running)
        is_cancelled(running)
        assert shoal.get(actor.one.remote(), timeout=DEADLINE_S) == 1
        assert not (tmp_path / "waiting").exists()

    @pytest.mark.not_on_ray("Ray drops a call when its turn comes, and tells nobody before whether it will")
    def test_a_threaded_call_that_has_not_begun_is_dropped(self, tmp_path):
        @shoal.remote(max_concurrency=2)
        class Actor:
            def work(self, started):
                started.touch()
                while not shoal.get_runtime_context().is_canceled():
                    time.sleep(0.01)
                return "told"

        actor = Actor.remote()
        running = [actor.work.remote(tmp_path / f"{n}") for n in range(2)]
        for n in range(2):
            appeared(tmp_path / f"{n}")
        queued = actor.work.remote(tmp_path / "queued")
        shoal.cancel(queued)
        is_cancelled(queued)
        for ref in running:
            shoal.cancel(ref)
        for ref in running:
            is_cancelled(ref)
        assert not (tmp_path / "queued").exists()

    def test_force_is_refused(self, tmp_path):
        @shoal.remote
        class Actor:
            def work(self):
                time.sleep(0.2)

        actor = Actor.remote()
        ref = actor.work.remote()
        with pytest.raises(ValueError, match=r"call of an actor|actor tasks"):
            shoal.cancel(ref, force=True)
        shoal.get(ref, timeout=DEADLINE_S)


@pytest.mark.not_inline("needs work that is still running")
class TestWorkThatDoesNotPause:
    """The news of the cancellation meets the runtime's own code as often as the user's."""

    def test_a_generator_that_yields_without_pause_ends(self):
        @shoal.remote
        def count():
            number = 0
            while True:
                yield number
                number += 1

        for attempt in range(3):
            generator = count.remote()
            next(generator)
            time.sleep(attempt * 0.001)
            shoal.cancel(generator)
            shoal.wait([generator.completed()], timeout=DEADLINE_S)
            assert shoal.wait([generator.completed()], timeout=0)[0], attempt

    @pytest.mark.not_on_ray("works off all that the task had submitted first, once for over 30 s")
    def test_a_task_that_does_nothing_but_submit_ends_and_so_do_its_children(self, tmp_path):
        @shoal.remote
        def parent(started):
            open(started, "w").close()
            while True:
                one.remote()

        for attempt in range(5):
            ref = parent.remote(tmp_path / f"{attempt}")
            appeared(tmp_path / f"{attempt}")
            time.sleep(attempt * 0.003)
            shoal.cancel(ref)
            is_cancelled(ref)
        assert shoal.get(one.remote(), timeout=DEADLINE_S) == 1

    def test_a_task_that_does_nothing_but_put_ends(self, tmp_path):
        @shoal.remote
        def put(started):
            open(started, "w").close()
            while True:
                shoal.put(1)

        for attempt in range(20):
            ref = put.remote(tmp_path / f"{attempt}")
            appeared(tmp_path / f"{attempt}")
            time.sleep(attempt * 0.001)
            shoal.cancel(ref)
            is_cancelled(ref)

    def test_a_generator_method_ends_at_its_next_yield(self):
        @shoal.remote
        class Actor:
            def count(self):
                number = 0
                while True:
                    yield number
                    number += 1

            def one(self):
                return 1

        actor = Actor.remote()
        free, held = actor.count.remote(), actor.count.options(_generator_backpressure_num_objects=1).remote()
        for generator in (free, held):
            next(generator)
            shoal.cancel(generator)
            *_, last = generator
            is_cancelled(last)
        assert shoal.get(actor.one.remote(), timeout=DEADLINE_S) == 1


@pytest.mark.not_inline("needs a call that is still running")
def test_what_a_cancelled_call_returns_leaves_nothing_behind():
    @shoal.remote
    class Actor:
        def work(self):
            while not shoal.get_runtime_context().is_canceled():
                time.sleep(0.001)
            return bytes(50_000_000)

    actor = Actor.remote()
    for _ in range(12):
        ref = actor.work.remote()
        time.sleep(0.01)
        shoal.cancel(ref)
        is_cancelled(ref)
    shoal.get(shoal.put(bytes(400_000_000)))


@pytest.mark.not_inline("looks at what another process is given")
def test_tasks_that_are_cancelled_ask_for_no_worker_any_more():
    @shoal.remote(num_cpus=2)
    class Holder:
        def ready(self):
            return True

    holder = Holder.remote()
    shoal.get(holder.ready.remote(), timeout=DEADLINE_S)
    waiting = [one.remote() for _ in range(200)]
    time.sleep(0.1)
    for ref in waiting:
        shoal.cancel(ref)
    for ref in waiting:
        is_cancelled(ref)
    shoal.kill(holder)
    time.sleep(0.2)
    ends = time.monotonic() + 0.5
    while time.monotonic() < ends:
        assert shoal.available_resources().get("CPU") == 2, "a worker is lent to nobody"
        time.sleep(0.01)


def test_a_generator_method_of_a_threaded_actor_ends_at_its_next_yield(tmp_path):
    @shoal.remote(max_concurrency=2)
    class Actor:
        def count(self, folder):
            number = 0
            try:
                while True:
                    yield number
                    number += 1
                    time.sleep(0.001)
                    (folder / "started").touch()
            finally:
                (folder / "closed").touch()

        def one(self):
            return 1

    actor = Actor.remote()
    generator = actor.count.remote(tmp_path)
    appeared(tmp_path / "started")
    shoal.cancel(generator)
    shoal.wait([generator.completed()], timeout=DEADLINE_S)
    *_, last = generator
    is_cancelled(last)
    assert (tmp_path / "closed").exists()
    assert shoal.get(actor.one.remote(), timeout=DEADLINE_S) == 1
