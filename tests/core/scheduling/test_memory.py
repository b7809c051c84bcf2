"""What containers leave of the machine's memory, by files as the kernel has them."""

import os

import pytest

from shoal.core.scheduling import memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
NONE_OF_VERSION_1 = 9223372036854771712


@pytest.fixture
def limited(tmp_path, monkeypatch):
    """Puts this process into groups, and gives them limits: {"group/memory.max": text}."""

    def limit(groups, limits):
        (tmp_path / "self").write_text("".join(f"{line}\n" for line in groups))
        for file, told in limits.items():
            (tmp_path / "fs" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "fs" / file).write_text(f"{told}\n")
        return memory.memory_bytes()

    monkeypatch.setattr(memory, "_PROCESS_GROUPS", tmp_path / "self")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "fs")
    return limit


@pytest.mark.parametrize(
    ("groups", "limits", "found"),
    [
        (["0::/"], {"memory.max": "2000000"}, 2_000_000),  # in a container
        (["0::/"], {"memory.max": "max"}, MACHINE),
        (["0::/"], {}, MACHINE),  # the root of the machine has no such file
        (["0::/"], {"memory.max": str(2 * MACHINE)}, MACHINE),
        (["0::/a/b"], {"a/b/memory.max": "max", "a/memory.max": "3000000"}, 3_000_000),
        (["0::/a/b"], {"a/b/memory.max": "1000000", "a/memory.max": "3000000"}, 1_000_000),
        (["0::/docker/of/the/host"], {"memory.max": "4000000"}, 4_000_000),
        (["0::/../other"], {"memory.max": "4000000", "other/memory.max": "1"}, 4_000_000),
        (["5:cpu,cpuacct:/", "4:memory:/a"], {"memory/a/memory.limit_in_bytes": "5000000"}, 5_000_000),
        (["4:memory:/", "0::/"], {"memory/memory.limit_in_bytes": str(NONE_OF_VERSION_1)}, MACHINE),
        (["4:memory:/docker/x"], {"memory/memory.limit_in_bytes": "6000000"}, 6_000_000),
        (["9:name=systemd:/a:b"], {"a:b/memory.max": "1"}, MACHINE),
    ],
)
def test_the_least_limit_of_a_group_and_of_those_above_it_counts(limited, groups, limits, found):
    assert limited(groups, limits) == found


def test_where_there_are_no_groups_all_of_the_machine_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_PROCESS_GROUPS", tmp_path / "nothing")
    assert memory.memory_bytes() == MACHINE
