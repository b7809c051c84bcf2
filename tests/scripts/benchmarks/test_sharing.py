import pytest

from shoal.scripts import bench
from shoal.scripts.benchmarks import sharing
from shoal.scripts.benchmarks.sharing import ALL_REDUCE, BOUNDED, PEER, SERVER, TOGETHER, UNBOUNDED, WHOLE


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--learners", "1"], "--learners must be at least 2"),
        (["--rounds", "0"], "--rounds, --steps and --fit-steps at least 1"),
        (["--fit-steps", "0"], "--rounds, --steps and --fit-steps at least 1"),
        (["--minibatch-size", "1"], "--minibatch-size must be at least --learners"),
        (["--bucket-mb", "0"], "--bucket-mb must be positive"),
        (["--hidden-sizes", "0"], "--hidden-sizes one or more of at least 1"),
    ],
)
def test_what_cannot_be_followed_is_told_in_one_line(arguments, complaint, capsys):
    assert bench.main(["learners", *arguments]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert (told.err.count("\n"), told.out) == (1, "")


def test_a_straggler_is_measured_and_all_is_told(capsys, monkeypatch):
    # Torch in six processes takes seconds to start.
    monkeypatch.setattr(sharing, "step_times", lambda _: {ALL_REDUCE: [0.011], SERVER: [0.012], PEER: [0.010]})
    assert bench.main(["learners", "--fit-steps", "2", "--rounds", "1", "--markdown"]) == 0
    told = capsys.readouterr().out
    for way in (ALL_REDUCE, SERVER, PEER, TOGETHER, BOUNDED, UNBOUNDED):
        assert f"| {way} | " in told
    assert "goal: allreduce at most 1.1 times DistributedDataParallel's step" in told
    assert "goal: at most 0.6 of the time" in told


def test_a_gradient_that_needs_several_buckets_is_summed_up_as_a_whole_too():
    spec = sharing._spec((1024, 1024))  # two nets, of 8 MiB together
    assert set(sharing._buckets(spec, 25.0)) == {ALL_REDUCE}
    in_buckets = sharing._buckets(spec, 4.0)
    assert in_buckets[ALL_REDUCE] == 4.0
    assert 8.0 < in_buckets[WHOLE] < 9.0


def test_each_way_stands_beside_what_it_is_measured_by():
    steps = {ALL_REDUCE: 0.0105, SERVER: 0.012, PEER: 0.010}
    assert [line[1:] for line in sharing.step_table(steps)[1:]] == [
        ["10.50 ms", "1.05"],
        ["12.00 ms", "1.20"],
        ["10.00 ms", "1.00"],
    ]
    assert sharing.step_verdict(steps).endswith("met (1.05)")
    assert sharing.step_verdict({**steps, ALL_REDUCE: 0.0112}).endswith("missed (1.12)")
    fits = {TOGETHER: 8.0, BOUNDED: 4.0, UNBOUNDED: 2.0}
    relative = [line[1:] for line in sharing.fit_table(fits)[1:]]
    assert relative == [["8.00 s", "1.00"], ["4.00 s", "0.50"], ["2.00 s", "0.25"]]
    assert sharing.fit_verdict(fits).endswith("met (0.50)")
    assert sharing.fit_verdict({**fits, BOUNDED: 5.0}).endswith("missed (0.62)")
