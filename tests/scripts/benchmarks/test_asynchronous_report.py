"""What `shoal bench appo` refuses and makes of its figures; and tiny runs of what its children do."""

import pytest

from shoal.scripts import bench
from shoal.scripts.benchmarks import asynchronous, asynchronous_sf, in_turn
from shoal.scripts.benchmarks.asynchronous_report import APPO, CASES, PPO, TRAINING, verdicts
from shoal.scripts.benchmarks.comparison import Row, Samples, Subject


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rounds", "0"], "--rounds and --steps must be at least 1"),
        (["--steps", "0"], "--rounds and --steps must be at least 1"),
        (["--only", "no such case"], "is in the name of no case; they are: CartPole-v1, APPO; HalfCheetah-v5"),
        (["--sf-python", "python3"], "give --vs sample-factory, too"),
        (["--json", "/no/such/folder/figures.json"], "its folder does not exist"),
        (["--vs", "sample-factory", "--sf-python", "/no/such/python"], "pip install sample-factory into an"),
    ],
)
def test_what_cannot_be_followed_is_told_in_one_line(arguments, complaint, capsys):
    assert bench.main(["appo", *arguments]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert told.err.startswith("shoal bench: ")
    assert (told.err.count("\n"), told.out) == (1, "")


def row(name, ours, theirs=None):
    return Row(Subject(name), Samples(ours), None if theirs is None else Samples(theirs))


def test_goals_are_judged_by_the_medians():
    rows = [
        row(TRAINING, [90.0, 100.0, 130.0], [20.0, 20.0, 21.0]),
        row(f"{PPO}: return per minute", [3000.0, 4000.0, 2000.0]),
        row(f"{APPO}: return per minute", [2900.0, 2800.0, 9000.0]),
    ]
    assert [str(verdict) for verdict in verdicts(rows)] == [
        "CartPole-v1, APPO 5.0 times Sample Factory (goal 5): reached",
        "HalfCheetah-v5, return per minute: APPO 2,900, PPO 3,000 (goal: as much): MISSED",
    ]
    assert verdicts([row(TRAINING, [100.0]), rows[1]]) == []


def test_rounds_have_their_seeds_and_each_engine_its_turn(monkeypatch, capsys):
    asked = []

    def run(engine, program, order, *, patience_s):
        asked.append((engine.module, program, order["seed"], order.get("entry")))
        figure = {"shoal": 50.0, "sample_factory": 5.0}[engine.module]
        yield {"steps_per_second": figure, "training_return": 1.0}

    monkeypatch.setattr(in_turn.children, "run", run)
    monkeypatch.setattr(in_turn.children.Engine, "version", lambda self: "2")
    assert bench.main(["appo", "--vs", "sample-factory", "--rounds", "2", "--markdown"]) == 0
    of_a_round = [
        ("shoal", "asynchronous.py", None), ("sample_factory", "asynchronous_sf.py", None),
        ("shoal", "asynchronous.py", "HalfCheetah-v5"), ("shoal", "asynchronous.py", "HalfCheetah-v5-appo"),
    ]  # fmt: skip
    assert asked == [(*each[:2], seed, each[2]) for seed in (1, 2) for each in of_a_round]
    told = capsys.readouterr().out
    assert "| CartPole-v1, APPO | 50.0/s | 0% | 5.00/s | 0% | 10.0 | 10.0 to 10.0 |" in told
    assert "- CartPole-v1, APPO 10.0 times Sample Factory (goal 5): reached" in told


def test_a_child_trains_with_the_settings_that_the_peer_gets():
    order = {**CASES[0].order, "total_steps": 1024, "seed": 1}
    told = asynchronous.train(order)
    assert told["steps_per_second"] > 0
    assert 1 <= told["training_return"] <= 500
    flags = asynchronous_sf.arguments(order, "/somewhere")
    assert flags[-3:] == ["--encoder_mlp_layers", "64", "64"]
    assert {"--algo=APPO", "--gamma=0.99", "--gae_lambda=0.95", "--train_for_env_steps=1024"} <= set(flags)


def test_a_child_tells_what_an_entry_of_the_zoo_earns_in_its_time():
    told = asynchronous.earn({"entry": "CartPole-v1-appo", "num_workers": 1, "seed": 1, "total_steps": 2048})
    assert 1 <= told["evaluated_return"] <= 500
    assert told["return_per_minute"] == pytest.approx(told["evaluated_return"] * 60 / told["seconds"])
