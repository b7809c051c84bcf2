"""The reason why an object is not there, from facts in tables."""

from __future__ import annotations

from shoal.core.runtime.reasons import Kind, reason_of

ME, OTHER, WORKER = b"m" * 12, b"o" * 12, b"w" * 12
ACTOR = ME + b"\1\0\0\0"


def obj(number):
    return bytes([number]) * 28


def maker(name, **facts):
    return {
        "state": "pending", "task_id": facts.pop("task_id", b"t"), "name": name,
        "task_state": "PENDING_NODE_ASSIGNMENT",
        "worker_id": b"", "actor_id": b"", "for_s": 1.0, "resources": {"CPU": 10_000}, "missing": [], "behind": "",
        "same_shape_at_work": [], **facts,
    }  # fmt: skip


def runs(name, task_id=b"t", wanted=()):
    verb = "get" if wanted else ""
    return {"task_id": task_id, "actor_id": b"", "name": name, "for_s": 3.0, "verb": verb, "wanted": wanted}


def lease(shape, actor=b"", blocked=False, worker=WORKER):
    return {"worker_id": worker, "pid": 7, "owner": ME, "actor_id": actor, "shape": shape, "blocked": blocked}


class Facts:
    """What processes would answer; None for one that is silent."""

    def __init__(self, **rows):
        self.rows = {"workers": [{"worker_id": WORKER.hex(), "pid": 7}], **rows}

    def __call__(self, subject, key, target):
        found = self.rows.get(subject, [])
        return found.get(key, []) if isinstance(found, dict) else found


def usage(total, available, *leases):
    return [{"total": {"CPU": total * 10_000}, "available": {"CPU": available * 10_000}}, *leases]


def why(number=1, **rows):
    return reason_of(Facts(**rows), [(obj(number), ME)])


def test_what_is_there_is_over():
    for state, words in (("ready", "is there"), ("failed", "error"), ("unknown", "freed")):
        reason = why(object=[{"state": state}])
        assert reason.kind is Kind.OVER
        assert words in reason.text


def test_a_running_task_is_progress():
    reason = why(
        object=[maker("f", task_state="SUBMITTED_TO_WORKER", worker_id=WORKER)], running=[runs("f")],
    )  # fmt: skip
    assert reason.kind is Kind.RUNNING
    assert reason.text == "f() runs on pid 7 since 3.0 s"


def test_the_deepest_reason_of_a_chain_counts():
    reason = why(
        object={
            obj(1): [maker("f", missing=[[obj(2), OTHER]])],
            obj(2): [maker("g", missing=[[obj(3), OTHER]])],
            obj(3): [maker("h", resources={"CPU": 40_000})],
        },
        usage=usage(4, 2, lease({"CPU": 20_000}, actor=ACTOR)),
        actors=[{"actor_id": ACTOR.hex(), "class_name": "Holder"}],
    )
    assert reason.kind is Kind.STUCK
    assert reason.text == (
        f"f() waits for its argument ObjectRef({obj(2).hex()}); g() waits for its argument ObjectRef({obj(3).hex()}); "
        "h() waits in the queue: it needs CPU 4, 2 of 4 are free; Holder (pid 7) has CPU 2"
    )


def test_resources_that_running_tasks_have_come_back():
    busy = usage(4, 2, lease({"CPU": 20_000}))
    assert why(object=[maker("f", resources={"CPU": 40_000})], usage=busy).kind is Kind.BUSY


def test_the_same_shape_at_work_is_a_turn_unless_all_of_it_is_blocked():
    queued = [maker("f", same_shape_at_work=[WORKER])]
    assert why(object=queued, usage=usage(1, 0, lease({"CPU": 10_000}))).kind is Kind.RUNNING
    blocked = usage(1, 0, lease({"CPU": 10_000}, blocked=True), lease({"CPU": 10_000}, actor=ACTOR, worker=b"a"))
    assert why(object=queued, usage=blocked).kind is Kind.STUCK


def test_an_actor_that_waits_for_itself_never_ends():
    reason = why(
        object={
            obj(1): [
                maker("A.outer", task_id=b"1", task_state="SUBMITTED_TO_WORKER", worker_id=WORKER, actor_id=ACTOR)
            ],
            obj(2): [
                maker("A.inner", task_id=b"2", task_state="SUBMITTED_TO_WORKER", worker_id=WORKER, actor_id=ACTOR)
            ],
        },
        running=[runs("A.outer", b"1", [[obj(2), WORKER]])],
    )
    assert reason.kind is Kind.ENDLESS
    assert reason.text.endswith("which waits for this very object: that never ends")


def test_a_cycle_has_one_cause_wherever_it_is_entered():
    facts = {
        obj(1): [maker("f", missing=[[obj(2), ME]])],
        obj(2): [maker("g", missing=[[obj(3), ME]])],
        obj(3): [maker("h", missing=[[obj(2), ME]])],
    }
    causes = {why(number, object=facts).key for number in (1, 2, 3)}
    assert causes == {f"endless:{obj(2).hex()}"}


def test_a_call_behind_one_whose_argument_is_missing_waits_for_that_argument():
    facts = {
        obj(1): [maker("A.f", actor_id=ACTOR, behind="A.g", missing=[[obj(2), ME]])],
        obj(2): [{"state": "pending"}],
    }
    assert "behind A.g(), an earlier call, which waits for its argument" in why(object=facts).text


def test_a_pending_actor_waits_for_resources_or_arguments():
    call = [maker("A.f", actor_id=ACTOR)]
    pending = [{
        "actor_id": ACTOR.hex(), "class_name": "A", "state": "PENDING_CREATION", "num_restarts": 0, "worker_id": None,
        "required_resources": {"CPU": 20_000},
    }]  # fmt: skip
    creation = [maker("A.__init__", actor_id=ACTOR, resources={"CPU": 20_000})]
    reason = why(object=call, actors=pending, creation=creation, usage=usage(2, 1, lease({"CPU": 10_000}, actor=b"x")))
    assert reason.kind is Kind.STUCK
    assert "which is pending: it waits in the queue: it needs CPU 2, 1 of 2 is free" in reason.text


def test_a_process_that_does_not_answer_is_named():
    reason = reason_of(lambda subject, key, target: None if target else [], [(obj(1), OTHER)])
    assert reason.kind is Kind.UNKNOWN
    assert OTHER.hex() in reason.text


def test_of_several_objects_one_that_is_being_made_is_enough():
    facts = {
        obj(1): [maker("f", resources={"CPU": 20_000})],
        obj(2): [maker("g", task_state="SUBMITTED_TO_WORKER", worker_id=WORKER)],
    }
    rows = Facts(object=facts, running=[runs("g")], usage=usage(2, 1))
    assert reason_of(rows, [(obj(1), ME), (obj(2), ME)]).kind is Kind.RUNNING
    assert reason_of(rows, [(obj(1), ME)]).kind is Kind.STUCK


GROUP = "ab" * 18


def group_row(state, *shapes):
    return {"placement_group_id": GROUP, "name": "", "state": state, "bundles": list(shapes), "is_detached": False}


def test_who_waits_for_a_placement_group_waits_for_what_the_group_waits_for():
    holder = [lease({"CPU": 10_000}, actor=ACTOR)]
    told = {
        "usage": usage(2, 1, *holder),
        "actors": {b"": [{"actor_id": ACTOR.hex(), "class_name": "Holder"}]},
        "placement_groups": [group_row("PENDING", {"CPU": 10_000}, {"CPU": 10_000})],
    }
    inside = {f"CPU_group_{GROUP}": 10_000, f"bundle_group_{GROUP}": 10}
    ends = f"waits for placement group {GROUP}: the group waits in the queue: it needs CPU 2, 1 of 2 is free; "
    ends += "Holder (pid 7) has CPU 1"
    for rows in ([maker("f", resources=inside)], [{"state": "pending", "group_id": bytes.fromhex(GROUP)}]):
        reason = why(object=rows, **told)
        assert reason.kind is Kind.STUCK
        assert reason.text.endswith(ends)


def test_a_placement_group_that_is_gone_is_over():
    waits = [{"state": "pending", "group_id": bytes.fromhex(GROUP)}]
    assert why(object=waits, placement_groups=[group_row("REMOVED")]).kind is Kind.OVER
    assert why(object=waits).kind is Kind.UNKNOWN


def test_what_a_placement_group_has_is_named_as_a_holder_and_its_own_resources_by_their_plain_names():
    reserved = group_row("CREATED", {"CPU": 10_000}, {"CPU": 10_000})
    reason = why(object=[maker("f")], usage=usage(2, 0), placement_groups=[reserved])
    assert reason.text.endswith(f"it needs CPU 1, 0 of 2 are free; placement group {GROUP} has CPU 2")
    names = {f"CPU_group_{GROUP}": 10_000, f"CPU_group_0_{GROUP}": 10_000, f"bundle_group_{GROUP}": 10}
    busy = dict.fromkeys(names, 0)
    reason = why(
        object=[maker("f", resources=names)],
        usage=[{"total": names, "available": busy}, lease({f"CPU_group_{GROUP}": 10_000})],
        placement_groups=[reserved],
    )
    assert f"it needs CPU of placement group {GROUP} 1, 0 of 1 are free" in reason.text
    assert "a task (pid 7) has CPU 1" in reason.text
