"""The four logs hold the same rows, survive a kill and a resume, and the curve is a picture."""

import csv
import json
import math
import struct

import pytest

from shoal.rllib.training.loggers import CsvLog, JsonLinesLog, RunLog, draw_curve, read_csv


def row(steps: int, **more: float) -> dict[str, float]:
    return {"steps": steps, "return_mean": steps / 3, **more}


def events(run_dir) -> dict[str, list[tuple[int, float]]]:
    """Scalars of all event files, read by the record format itself: length, crc, bytes, crc."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(run_dir.glob("events.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
            at += 16 + length
    return found


def test_every_log_has_every_row(tmp_path):
    with RunLog(tmp_path, title="PPO on CartPole-v1") as log:
        log.write(row(100, **{"learner/kl": 0.01}))
        log.write(row(200, **{"learner/kl": 0.02}))
    assert read_csv(tmp_path / "progress.csv") == [
        {"steps": "100", "return_mean": repr(100 / 3), "learner/kl": "0.01"},
        {"steps": "200", "return_mean": repr(200 / 3), "learner/kl": "0.02"},
    ]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["learner/kl"] for line in lines] == [0.01, 0.02]
    assert events(tmp_path)["learner/kl"] == [(100, pytest.approx(0.01)), (200, pytest.approx(0.02))]
    assert "steps" not in events(tmp_path)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_row_is_on_disk_when_write_returns(tmp_path):
    log = RunLog(tmp_path, title="")
    log.write(row(100))
    assert len(read_csv(tmp_path / "progress.csv")) == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    log.close()


def test_a_name_that_comes_late_widens_the_table(tmp_path):
    log = CsvLog(tmp_path / "it.csv")
    log.write(row(100))
    log.write(row(200, extra=1.5))
    log.write(row(300))
    log.close()
    assert [each["extra"] for each in read_csv(tmp_path / "it.csv")] == ["", "1.5", ""]


def test_what_is_not_finite_stays_readable(tmp_path):
    with RunLog(tmp_path, title="") as log:
        log.write({"steps": 1, "return_mean": math.nan, "loss": math.inf})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"steps": 1, "return_mean": None, "loss": None}
    (told,) = read_csv(tmp_path / "progress.csv")
    assert math.isnan(float(told["return_mean"]))
    assert float(told["loss"]) == math.inf


def test_resuming_drops_the_rows_after_the_checkpoint_and_goes_on(tmp_path):
    with RunLog(tmp_path, title="") as log:
        for steps in (100, 200, 300):
            log.write(row(steps))
    with RunLog(tmp_path, title="", resume_at=200) as log:
        log.write(row(310, fresh=1))
    assert [each["steps"] for each in read_csv(tmp_path / "progress.csv")] == ["100", "200", "310"]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["steps"] for line in lines] == [100, 200, 310]


def test_a_fresh_log_forgets_what_was_there(tmp_path):
    for _ in range(2):
        with RunLog(tmp_path, title="") as log:
            log.write(row(100))
    assert len(read_csv(tmp_path / "progress.csv")) == 1


def test_a_line_cut_by_a_kill_is_dropped_on_resume(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"steps": 100}\n{"ste')
    (tmp_path / "a.csv").write_text("steps,return_mean\n100,1.0\n2")
    JsonLinesLog(tmp_path / "a.jsonl", keep_until=1000).close()
    CsvLog(tmp_path / "a.csv", keep_until=1000).close()
    assert (tmp_path / "a.jsonl").read_text() == '{"steps": 100}\n'
    assert (tmp_path / "a.csv").read_text() == "steps,return_mean\n100,1.0\n"


@pytest.mark.parametrize("name", ["progress.csv", "metrics.jsonl"])
def test_a_kill_while_a_log_is_written_anew_loses_no_row(tmp_path, monkeypatch, name):
    with RunLog(tmp_path, title="") as log:
        log.write(row(100))
        log.write(row(200))
    before = (tmp_path / name).read_text()
    kinds = {"progress.csv": CsvLog, "metrics.jsonl": JsonLinesLog}

    def killed(source, target):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(SystemExit):
            kinds[name](tmp_path / name, keep_until=1000)
    assert (tmp_path / name).read_text() == before
    kinds[name](tmp_path / name, keep_until=1000).close()
    assert (tmp_path / name).read_text() == before
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_kill_while_the_table_widens_loses_no_row(tmp_path, monkeypatch):
    log = CsvLog(tmp_path / "it.csv")
    log.write(row(100))
    before, on_disk = (tmp_path / "it.csv").read_text(), []
    rewrite = csv.DictWriter.writerows

    def watched(self, rows):
        on_disk.append((tmp_path / "it.csv").read_text())
        return rewrite(self, rows)

    monkeypatch.setattr(csv.DictWriter, "writerows", watched)
    log.write(row(200, extra=1.5))
    log.close()
    assert on_disk == [before]
    assert [each["extra"] for each in read_csv(tmp_path / "it.csv")] == ["", "1.5"]


def test_no_picture_is_drawn_of_nothing(tmp_path):
    with RunLog(tmp_path, title=""):
        pass
    assert not (tmp_path / "curve.png").exists()
    (tmp_path / "only_nan.csv").write_text("steps,return_mean\n100,nan\n")
    draw_curve(tmp_path / "only_nan.csv", tmp_path / "curve.png", title="")
    assert not (tmp_path / "curve.png").exists()


def test_evaluations_are_drawn_also_without_training_episodes(tmp_path):
    (tmp_path / "it.csv").write_text("steps,return_mean,evaluation/return_mean\n100,,\n200,nan,12.5\n")
    draw_curve(tmp_path / "it.csv", tmp_path / "curve.png", title="x")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_tensorboard_is_given_finite_numbers_only(tmp_path, monkeypatch):
    import tensorboardX

    given = []
    monkeypatch.setattr(tensorboardX.SummaryWriter, "add_scalar", lambda self, *scalar: given.append(scalar))
    with RunLog(tmp_path, title="t") as log:
        log.write({"steps": 10, "return_mean": float("nan"), "loss": 2.0, "kl": float("inf")})
    assert given == [("loss", 2.0, 10)]
