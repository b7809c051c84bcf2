"""The names of a placement group's resources, there and back."""

import pytest
from hypothesis import given, strategies as st

from shoal.core.scheduling import bundles

GROUP = "ab" * 18
OTHER = "cd" * 18
names = st.sampled_from(["CPU", "GPU", "memory", "custom", "node:127.0.0.1", "a_group_b"])
demands = st.dictionaries(names, st.integers(1, 10**9), max_size=4)


def test_a_group_has_each_resource_in_all_and_for_each_bundle():
    """As Ray 2.60 shows it in cluster_resources."""
    parts = bundles.resources_of(GROUP, [{"CPU": 10_000, "GPU": 10_000}, {"CPU": 20_000}])
    assert parts == {
        f"CPU_group_{GROUP}": 30_000,
        f"CPU_group_0_{GROUP}": 10_000,
        f"CPU_group_1_{GROUP}": 20_000,
        f"GPU_group_{GROUP}": 10_000,
        f"GPU_group_0_{GROUP}": 10_000,
        f"bundle_group_{GROUP}": 20_000_000,
        f"bundle_group_0_{GROUP}": 10_000_000,
        f"bundle_group_1_{GROUP}": 10_000_000,
    }


@given(demands, st.integers(-1, 12))
def test_what_goes_into_a_group_comes_out_of_it(demand, index):
    shape = bundles.inside(demand, GROUP, index)
    assert bundles.group_of(shape) == GROUP
    assert bundles.bundle_of(shape) == index
    assert bundles.outside(shape) == demand
    assert {bundles.plain_name(name) for name in shape} - {"bundle", "a"} <= set(demand)


@given(st.lists(demands.filter(bool), min_size=1, max_size=4), st.data())
def test_what_fits_a_bundle_fits_what_the_group_has(parts, data):
    index = data.draw(st.integers(-1, len(parts) - 1))
    has = bundles.resources_of(GROUP, parts)
    shape = bundles.inside(parts[max(index, 0)], GROUP, index)
    assert all(amount <= has[name] for name, amount in shape.items())


@given(demands)
def test_a_demand_outside_of_groups_stays_as_it_is(demand):
    assert bundles.group_of(demand) == ""
    assert bundles.bundle_of(demand) == -1
    assert bundles.outside(demand) == demand


def test_a_demand_for_nothing_is_known_to_be_inside():
    assert bundles.group_of(bundles.inside({}, OTHER)) == OTHER


def test_a_bundle_is_read_like_options():
    assert bundles.parse_bundle({"CPU": 0.5, "custom": 2, "GPU": 0}) == {"CPU": 5_000, "custom": 20_000}
    with pytest.raises(ValueError, match="not negative"):
        bundles.parse_bundle({"CPU": -1})
    with pytest.raises(ValueError, match="whole"):
        bundles.parse_bundle({"GPU": 1.5})
    with pytest.warns(DeprecationWarning, match="object_store_memory"):
        assert bundles.parse_bundle({"object_store_memory": 7}) == {"object_store_memory": 70_000}
