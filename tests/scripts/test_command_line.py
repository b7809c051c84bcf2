"""Flags come from dataclasses; what is wrong with them is told in one line; every failure has its exit code."""

import contextlib
import importlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import pytest
import tyro

from shoal.envs.columns import UnsupportedSpace
from shoal.envs.registry import MissingLibrary, UnknownEnvironment
from shoal.envs.vector import EnvFailure
from shoal.rllib.config import ConfigError
from shoal.rllib.learning.learner import DivergedError
from shoal.rllib.training.checkpoints import CheckpointError
from shoal.rllib.worker_set import WorkerLostError
from shoal.scripts.command_line import UsageError, flags, parse, run_command, value_of

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Inner:
    num_workers: int = 2
    """Rollout workers."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths."""
    target_kl: float | None = None
    """Stop early."""
    gamma: float = 0.9
    """Discount."""
    anneal: bool = True
    """Let it fall."""

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ConfigError(f"num_workers must be at least 1, not {self.num_workers}; " + "long " * 40)


@dataclass(frozen=True, kw_only=True)
class Outer(Generic[C]):
    place: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")] = Path()
    """A folder."""
    run_dir: Path | None = None
    """Another."""
    config: tyro.conf.OmitArgPrefixes[C]


def read(*arguments: str) -> Outer[Inner]:
    return parse(Outer[Inner], arguments, prog="shoal try", description="Try.", default=Outer(config=Inner()))


@pytest.fixture(params=["utf-8", "ascii"], autouse=True)
def encoding(request, monkeypatch):
    """Boxes are drawn with lines or with hyphens, depending on what stdout can show."""
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=request.param))


def complaint(*arguments: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_flags_are_read_into_the_nested_dataclass():
    told = read("here", "--num-workers", "3", "--hidden-sizes", "8", "9", "--target-kl", "0.5", "--no-anneal")
    assert told == Outer(
        place=Path("here"), config=Inner(num_workers=3, hidden_sizes=(8, 9), target_kl=0.5, anneal=False)
    )


def test_flags_that_are_not_given_keep_the_values_of_the_default():
    default = Outer(config=Inner(num_workers=7))
    assert parse(Outer[Inner], [], prog="p", description="", default=default) == default


def test_of_a_repeated_flag_the_last_counts():
    assert read("--num-workers", "3", "--num-workers", "4").config.num_workers == 4


def test_help_explains_each_flag_with_its_default():
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as stopped:
        read("--help")
    assert stopped.value.code == 0
    told = out.getvalue()
    for text in ("shoal try", "--num-workers INT", "Rollout workers.", "(default: 2)", "--no-anneal"):
        assert text in told


def test_every_flag_is_listed():
    assert flags(Outer[Inner]) == [
        "--run-dir", "--num-workers", "--hidden-sizes", "--target-kl", "--gamma", "--anneal", "--no-anneal",
    ]  # fmt: skip


def test_an_unknown_flag_is_named_with_the_nearest_and_all_others():
    assert complaint("--num-worker", "3") == (
        "unknown flag --num-worker (did you mean --num-workers?); "
        "there are these: --run-dir, --num-workers, --hidden-sizes, --target-kl, --gamma, --anneal, --no-anneal"
    )
    assert complaint("--zzz=3").startswith("unknown flag --zzz; there are these: --run-dir")


def test_a_stray_word_is_named():
    assert complaint("here", "there") == "Unrecognized options: there"
    assert complaint("here", "-x") == "Unrecognized options: -x"


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--num-workers", "x"], ["--num-workers INT: 'x' is not a whole number"]),
        (["--num-workers", "1.5"], ["--num-workers INT: '1.5' is not a whole number"]),
        (["--gamma", "x"], ["--gamma FLOAT: 'x' is not a number"]),
        (["--hidden-sizes", "a"], ["--hidden-sizes", "INT", ": cannot be read from 'a'"]),
        (["--target-kl", "low"], ["--target-kl", "FLOAT: cannot be read from 'low'"]),
        (["--num-workers"], ["--num-workers needs a value behind it"]),
    ],
)
def test_a_wrong_value_is_named_with_what_the_flag_wants(arguments, texts):
    told = complaint(*arguments)
    assert all(text in told for text in texts), told


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("flag", ["--gamma", "--target-kl"])
def test_a_number_that_is_not_finite_is_refused_by_its_flag(flag, value):
    assert complaint(f"{flag}={value}") == f"{flag} must be a finite number, not {value}"


def test_what_the_dataclass_itself_refuses_is_told_in_its_own_words_on_one_line():
    told = complaint("--num-workers", "-2")
    assert told.startswith("num_workers must be at least 1, not -2; long")
    assert told.count("long") == 40


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--algo", "ppo"], "ppo"),
        (["--seed", "1", "--algo=es"], "es"),
        (["--algo", "ppo", "--algo", "es"], "es"),
        (["--algo", "--seed", "1"], None),
        (["--algo"], None),
        (["--algorithm", "es"], None),
        ([], None),
    ],
)
def test_one_value_can_be_read_ahead_of_the_rest(arguments, value):
    assert value_of("--algo", arguments) == value


def raising(error: BaseException):
    def body() -> int:
        raise error

    return body


@pytest.mark.parametrize(
    "kind", [UsageError, ConfigError, UnknownEnvironment, MissingLibrary, UnsupportedSpace, CheckpointError]
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(kind, capsys):
    assert run_command("shoal try", raising(kind("it is\n  wrong"))) == 2
    assert capsys.readouterr().err == "shoal try: it is wrong\n"


def test_an_environments_failure_keeps_its_own_traceback(capsys):
    assert run_command("shoal try", raising(EnvFailure("worker 1, environment 3: its step raised\nTraceback x"))) == 2
    assert capsys.readouterr().err == "shoal try: worker 1, environment 3: its step raised\nTraceback x\n"


@pytest.mark.parametrize("kind", [DivergedError, WorkerLostError])
def test_a_run_that_fails_on_its_own_says_why_with_exit_code_1(kind, capsys):
    assert run_command("shoal try", raising(kind("lost"))) == 1
    assert capsys.readouterr().err == "shoal try: lost\n"


@pytest.mark.parametrize(("said", "told"), [("Unable to allocate 1 TiB",) * 2, ("", "it is used up")])
def test_memory_that_does_not_suffice_is_one_line(said, told, capsys):
    assert run_command("shoal try", raising(MemoryError(said))) == 1
    assert capsys.readouterr().err == f"shoal try: there is not enough memory: {told}\n"


def test_ctrl_c_is_130_without_a_traceback(capsys):
    assert run_command("shoal try", raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "shoal try: interrupted\n"


def test_ctrl_c_that_a_library_has_made_its_own_error_of_is_still_ctrl_c(capsys):
    def export():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            raise RuntimeError("the model could not be traced") from interrupt

    assert run_command("shoal try", export) == 130
    assert capsys.readouterr().err == "shoal try: interrupted\n"


def test_an_error_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command("shoal try", raising(ZeroDivisionError()))


def test_modules_in_the_folder_where_the_user_stands_can_be_imported(tmp_path, monkeypatch):
    (tmp_path / "my_games_of_this_test.py").write_text("Maze = 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    assert run_command("shoal try", lambda: importlib.import_module("my_games_of_this_test").Maze) == 1
    assert sys.path[-1] == str(tmp_path)
