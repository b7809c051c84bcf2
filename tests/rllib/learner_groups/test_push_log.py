"""The log on disk: what was written comes back, whatever moment its process died at."""

import errno

import numpy as np
import pytest

from shoal.rllib.learner_groups.parameter_shard import Commit, Push
from shoal.rllib.learner_groups.push_log import DamagedLogError, PushLog

ENTRIES = [
    Push(0, 0, 4, 0.1, np.arange(3, dtype=np.float32)),
    Push(1, 0, 5, 0.2, np.full(3, np.inf, np.float32)),
    Commit(0, 0.5),
    Commit(1, None),
]


def written(directory):
    log = PushLog(directory)
    for entry in ENTRIES:
        log.append(entry)
    log.close()
    return directory / "entries.0"


def same(mine, its):
    assert [type(each) for each in mine] == [type(each) for each in its]
    for one, other in zip(mine, its, strict=True):
        for name in vars(one):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_entries_come_back_as_they_were(tmp_path):
    written(tmp_path)
    arrays, entries = PushLog(tmp_path).recover()
    assert arrays is None
    same(entries, ENTRIES)


def test_whatever_byte_the_process_died_at_whole_entries_come_back_and_others_follow(tmp_path):
    whole = written(tmp_path).read_bytes()
    for length in range(len(whole) + 1):
        (tmp_path / "entries.0").write_bytes(whole[:length])
        log = PushLog(tmp_path)
        _, entries = log.recover()
        same(entries, ENTRIES[: len(entries)])
        assert length == len(whole) or len(entries) < len(ENTRIES)
        log.append(Commit(9, 1.0))
        log.close()
        same(PushLog(tmp_path).recover()[1], [*entries, Commit(9, 1.0)])


def test_lives_are_counted(tmp_path):
    for life in range(1, 4):
        log = PushLog(tmp_path)
        log.recover()
        assert log.lives == life


def test_a_damaged_entry_is_an_error_and_not_the_end(tmp_path):
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedLogError, match=r"entries\.0 is damaged at byte 0, behind 0 entries"):
        PushLog(tmp_path).recover()


def test_a_snapshot_takes_the_place_of_what_was_before(tmp_path):
    written(tmp_path)
    log = PushLog(tmp_path)
    for number in range(3):
        log.snapshot({"weights": np.full(2, number)})
        log.append(Commit(number, 1.0))
    log.close()
    arrays, entries = PushLog(tmp_path).recover()
    assert arrays["weights"].tolist() == [2, 2]
    same(entries, [Commit(2, 1.0)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entries.3", "lives", "snapshot.3.npz"]


def test_what_a_death_has_left_of_older_snapshots_is_removed_when_the_log_is_read(tmp_path):
    path = written(tmp_path)
    old = path.read_bytes()
    log = PushLog(tmp_path)
    for _ in range(2):
        log.snapshot({"weights": np.ones(2)})
    path.write_bytes(old)
    (tmp_path / "snapshot.1.npz").write_bytes(b"of before")
    (tmp_path / "unfinished.npz").write_bytes(b"half")
    assert PushLog(tmp_path).recover()[1] == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["lives", "snapshot.2.npz"]


@pytest.mark.parametrize("moment", ["before the new one has its name", "before the old one is removed"])
def test_a_process_that_dies_while_it_makes_a_snapshot_loses_nothing(tmp_path, monkeypatch, moment):
    path = written(tmp_path)
    old = path.read_bytes()
    log = PushLog(tmp_path)
    if moment.startswith("before the new"):

        def dies(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("os.replace", dies)
        with pytest.raises(KeyboardInterrupt):
            log.snapshot({"weights": np.ones(2)})
        arrays, entries = PushLog(tmp_path).recover()
        assert arrays is None
        same(entries, ENTRIES)
    else:
        log.snapshot({"weights": np.ones(2)})
        path.write_bytes(old)
        arrays, entries = PushLog(tmp_path).recover()
        assert arrays["weights"].tolist() == [1, 1]
        assert entries == []


def test_a_disk_that_is_full_keeps_nothing_of_the_entry(tmp_path, monkeypatch):
    written(tmp_path)
    log = PushLog(tmp_path)
    log.append(Commit(2, 1.0))
    real = log._file

    class Full:
        def write(self, content):
            real.write(content[:5])
            raise OSError(errno.ENOSPC, "no space left")

        def __getattr__(self, name):
            return getattr(real, name)

    log._file = Full()
    with pytest.raises(OSError, match=r"no space left: '.*entries\.0'$"):
        log.append(Commit(3, 1.0))
    log._file = real
    log.append(Commit(4, 1.0))
    same(PushLog(tmp_path).recover()[1], [*ENTRIES, Commit(2, 1.0), Commit(4, 1.0)])


def test_a_directory_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="on a cluster, name one that all nodes share"):
        PushLog(tmp_path / "nowhere")
