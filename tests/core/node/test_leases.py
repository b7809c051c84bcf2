"""The node's book of resources: nothing is lost, nobody starves, blocked tasks give their CPU back."""

from __future__ import annotations

import random

import pytest

from shoal.core.node.leases import Infeasible, LeaseTable
from shoal.core.scheduling import bundles

CPU = 10_000
A, B = b"a" * 12, b"b" * 12


def table(cpus: int = 2, **others: int) -> LeaseTable:
    return LeaseTable({"CPU": cpus * CPU, **others}, task_limit=16)


def worker(number: int) -> bytes:
    return number.to_bytes(12, "big")


def grant_all(leases: LeaseTable, first: int = 0) -> list[bytes]:
    """Give an idle worker to every reservation; returns the owners in order."""
    owners = []
    leases.admit()
    while leases.unstaffed:
        owners.append(leases.assign(worker(first + len(owners))).owner)
    return owners


def test_as_many_are_granted_as_resources_allow():
    leases = table(2)
    leases.demand(A, 0, {"CPU": CPU}, 5)
    assert grant_all(leases) == [A, A]
    assert leases.available["CPU"] == 0
    leases.release(worker(0))
    assert grant_all(leases, 10) == [A]


def test_owners_take_turns():
    leases = table(4)
    leases.demand(A, 0, {"CPU": CPU}, 10)
    leases.demand(B, 0, {"CPU": CPU}, 10)
    assert sorted(grant_all(leases)) == [A, A, B, B]


def test_a_demand_that_does_not_fit_now_does_not_hold_up_others():
    leases = table(2, GPU=CPU)
    leases.demand(A, 0, {"CPU": CPU, "GPU": CPU}, 2)
    leases.demand(B, 0, {"CPU": CPU}, 2)
    assert sorted(grant_all(leases)) == [A, B]


def test_the_last_word_counts_and_zero_withdraws():
    leases = table(2)
    leases.demand(A, 0, {"CPU": CPU}, 5)
    leases.demand(A, 0, {"CPU": CPU}, 1)
    assert grant_all(leases) == [A]
    leases.demand(A, 0, {"CPU": CPU}, 5)
    leases.admit()
    assert leases.unstaffed == 1
    leases.demand(A, 0, {"CPU": CPU}, 0)
    assert leases.unstaffed == 0
    assert leases.available["CPU"] == CPU


def test_what_can_never_be_is_refused_with_demand_and_total():
    with pytest.raises(Infeasible, match="needs CPU 3, this machine has CPU 2"):
        table(2).demand(A, 0, {"CPU": 3 * CPU}, 1)
    with pytest.raises(Infeasible, match="needs GPU 1"):
        table(2).demand_actor(b"actor", A, {}, {"GPU": CPU})


def test_a_blocked_task_lends_its_cpu_and_takes_it_back():
    leases = table(1, GPU=CPU)
    leases.demand(A, 0, {"CPU": CPU, "GPU": CPU}, 1)
    grant_all(leases)
    leases.block(worker(0), blocked=True)
    leases.block(worker(0), blocked=True)  # twice is once
    assert leases.available == {"CPU": CPU, "GPU": 0}, "the GPU stays"
    leases.demand(B, 0, {"CPU": CPU}, 1)
    assert grant_all(leases, 5) == [B]
    leases.block(worker(0), blocked=False)
    assert leases.available["CPU"] == -CPU
    leases.release(worker(5))
    leases.release(worker(0))
    assert leases.available == leases.total


def test_actors_keep_their_cpu_while_they_wait():
    leases = table(1)
    leases.demand_actor(b"actor", A, {"CPU": CPU}, {"CPU": CPU})
    grant_all(leases)
    leases.block(worker(0), blocked=True)
    assert leases.available["CPU"] == 0


def test_tasks_without_resources_do_not_get_a_process_each():
    leases = LeaseTable({"CPU": CPU}, task_limit=3)
    leases.demand(A, 0, {}, 1000)
    assert len(grant_all(leases)) == 3
    leases.block(worker(0), blocked=True)
    assert len(grant_all(leases, 10)) == 1, "one that waits does not count"


def test_the_death_of_an_owner_takes_its_demands_and_names_its_workers():
    leases = table(3)
    leases.demand(A, 0, {"CPU": CPU}, 1)
    grant_all(leases)
    leases.demand(A, 1, {"CPU": CPU}, 1)
    leases.admit()
    assert leases.owner_died(A) == [worker(0)]
    leases.release(worker(0))
    assert leases.available == leases.total
    assert leases.unstaffed == 0


def test_a_worker_takes_the_oldest_reservation_of_its_environment():
    leases = table(3)
    leases.demand(A, 0, {"CPU": CPU}, 1, b"e")
    leases.demand(B, 0, {"CPU": CPU}, 1)
    leases.demand_actor(b"actor", A, {"CPU": CPU}, {}, b"e")
    leases.admit()
    assert leases.unstaffed_by_environment == {b"e": 2, b"": 1}
    assert leases.assign(worker(0), b"f") is None
    assert leases.assign(worker(0)).owner == B
    assert leases.assign(worker(1), b"e").actor == b"actor", "actors first"
    assert leases.assign(worker(2), b"e").owner == A


def test_what_waits_for_an_environment_that_does_not_come_up_is_forgotten():
    leases = table(2)
    leases.demand(A, 0, {"CPU": CPU}, 5, b"e")
    leases.demand(A, 1, {"CPU": 2 * CPU}, 5, b"e")
    leases.demand(B, 0, {"CPU": CPU}, 1)
    leases.demand_actor(b"actor", A, {"CPU": CPU}, {}, b"e")
    leases.admit()
    assert leases.refuse(b"e") == ([(A, 0), (A, 1)], [b"actor"])
    assert grant_all(leases) == [B]
    leases.release(worker(0))
    assert leases.available == leases.total


GROUPS = ["aa" * 18, "bb" * 18]


def test_work_for_a_group_waits_until_the_group_has_its_resources():
    leases = table(2)
    leases.demand(A, 0, bundles.inside({"CPU": CPU}, GROUPS[0]), 3)
    leases.demand_actor(b"actor", B, bundles.inside({}, GROUPS[0]), bundles.inside({}, GROUPS[0]))
    assert grant_all(leases) == []
    assert leases.groups_wanted() == {GROUPS[0]}
    assert leases.stock.reserve_group(GROUPS[0], [{"CPU": CPU}, {"CPU": CPU}])
    assert grant_all(leases) == [B, A, A], "the actor first"
    assert leases.available["CPU"] == 0


def test_a_blocked_task_in_a_group_lends_the_cpu_of_its_group():
    leases = table(1)
    leases.stock.reserve_group(GROUPS[0], [{"CPU": CPU}])
    leases.demand(A, 0, bundles.inside({"CPU": CPU}, GROUPS[0], 0), 1)
    grant_all(leases)
    leases.demand(B, 0, bundles.inside({"CPU": CPU}, GROUPS[0]), 1)
    assert grant_all(leases, 5) == []
    leases.block(worker(0), blocked=True)
    assert grant_all(leases, 5) == [B]


def test_closing_a_group_ends_all_that_stands_in_it_and_nothing_else():
    leases = table(3)
    leases.stock.reserve_group(GROUPS[0], [{"CPU": CPU}, {"CPU": CPU}])
    shape = bundles.inside({"CPU": CPU}, GROUPS[0])
    leases.demand_actor(b"lives", A, shape, shape)
    leases.demand(A, 1, shape, 1)
    leases.demand(B, 9, {"CPU": CPU}, 1)
    grant_all(leases)
    leases.demand(B, 2, shape, 4)
    leases.demand_actor(b"waits", B, shape, shape)
    closed = leases.close_group(GROUPS[0])
    assert sorted(closed.refused) == [(A, 1), (B, 2)]
    assert sorted(closed.actors) == [b"lives", b"waits"]
    assert sorted(closed.workers) == [worker(0), worker(1)]
    assert leases.groups_wanted() == set()
    assert leases.available == {"CPU": 2 * CPU}
    for doomed in closed.workers:
        leases.release(doomed)
    assert leases.available == {"CPU": 2 * CPU}
    leases.release(worker(2))
    assert leases.available == leases.total == {"CPU": 3 * CPU}


def test_gpus_stay_with_a_lease_until_it_is_returned():
    leases = LeaseTable({"CPU": 4 * CPU, "GPU": 2 * CPU}, task_limit=16, gpus=["3", "5"])
    leases.demand(A, 0, {"GPU": CPU // 2}, 2)
    leases.demand(B, 0, {"GPU": CPU}, 2)
    grant_all(leases)
    given = [lease.reservation.gpus for lease in leases.leases.values()]
    assert sorted(given) == [["3"], ["3"], ["5"]], "two halves share one"
    leases.release(next(w for w, lease in leases.leases.items() if lease.reservation.gpus == ["5"]))
    assert grant_all(leases, 10) == [B]
    assert leases.leases[worker(10)].reservation.gpus == ["5"]


def test_reservations_with_gpus_can_be_staffed_apart():
    leases = LeaseTable({"CPU": 4 * CPU, "GPU": CPU}, task_limit=16)
    leases.demand(A, 0, {"CPU": CPU}, 1)
    leases.demand(B, 0, {"GPU": CPU}, 1)
    leases.admit()
    assert leases.unstaffed_with_gpus(b"") == 1
    assert leases.unstaffed_with_gpus(b"other") == 0
    assert leases.assign(worker(0), gpus=True).owner == B
    assert leases.assign(worker(1), gpus=True) is None
    assert leases.assign(worker(1), gpus=False).owner == A


@pytest.mark.parametrize("seed", range(30))
def test_resources_always_add_up(seed):  # noqa: C901  a random walk
    """Work of its own and in groups comes, blocks and goes, and groups do."""
    rng = random.Random(seed)
    parts = [[{"CPU": CPU}, {"CPU": CPU, "GPU": CPU}], [{"CPU": CPU}]]
    leases = LeaseTable({"CPU": 4 * CPU, "GPU": 2 * CPU}, task_limit=6)
    busy, serial, environments = [], 0, [b"", b"e"]
    shapes = [{"CPU": CPU}, {"CPU": CPU // 2}, {"CPU": 2 * CPU, "GPU": CPU}, {}]
    shapes += [bundles.inside({"CPU": CPU}, group, index) for group in GROUPS for index in (-1, 0)]
    reserved = set()
    for _ in range(400):
        event = rng.randrange(9)
        owner = rng.choice([A, B])
        if event == 0:
            key = rng.randrange(len(shapes))
            leases.demand(owner, key, shapes[key], rng.randrange(4), environments[key % 2])
        elif event == 1:
            serial += 1
            actor = serial.to_bytes(16, "big")
            leases.demand_actor(actor, owner, rng.choice(shapes), {"CPU": CPU}, rng.choice(environments))
        elif event == 2 and serial:
            leases.withdraw_actor(rng.randrange(1, serial + 1).to_bytes(16, "big"))
        elif event == 3 and busy:
            leases.block(rng.choice(busy), blocked=rng.random() < 0.5)
        elif event == 4 and busy:
            leases.release(busy.pop(rng.randrange(len(busy))))
        elif event == 5:
            for doomed in leases.owner_died(owner):
                leases.release(doomed)
                busy.remove(doomed)
        elif event == 6 and rng.random() < 0.3:
            leases.refuse(b"e")
            assert b"e" not in leases.unstaffed_by_environment
        elif event == 7 and reserved != {0, 1}:
            new = rng.choice(sorted({0, 1} - reserved))
            if leases.stock.reserve_group(GROUPS[new], parts[new]):
                reserved.add(new)
        elif event == 8 and rng.random() < 0.3:
            gone = rng.randrange(2)
            for doomed in leases.close_group(GROUPS[gone]).workers:
                leases.release(doomed)
                busy.remove(doomed)
            reserved.discard(gone)
            assert GROUPS[gone] not in leases.groups_wanted()
        leases.admit()
        while leases.unstaffed and rng.random() < 0.8:
            serial += 1
            environment = rng.choice(sorted(leases.unstaffed_by_environment))
            assert leases.assign(worker(serial), environment).environment == environment
            busy.append(worker(serial))
        assert set(leases.leases) == set(busy)
        used = [(lease.reservation.shape, lease.blocked) for lease in leases.leases.values()]
        used += [(reservation.shape, False) for reservation in leases._reserved]
        used += [(bundle, False) for group in reserved for bundle in parts[group]]
        held = dict.fromkeys(leases.total, 0)
        for shape, blocked in used:
            for name, amount in shape.items():
                held[name] += 0 if blocked and name.startswith("CPU") else amount
        assert {name: leases.available[name] + held[name] for name in held} == leases.total
        assert {bundles.group_of(shape) for shape, _ in used} - {""} <= {GROUPS[group] for group in reserved}
