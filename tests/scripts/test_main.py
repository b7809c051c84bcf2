"""The `shoal` command finds its commands, explains itself, and starts fast."""

import os
import subprocess
import sys

import pytest

from shoal.scripts.__main__ import COMMANDS, main


def test_help_lists_every_command(capsys):
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        told = capsys.readouterr().out
        assert all(name in told and text in told for name, text in COMMANDS.items())


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("shoal ")


def test_an_unknown_command_is_one_line_with_the_choices(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr() == (
        "",
        f"shoal: unknown command 'trian' (did you mean train?); there are these: {', '.join(COMMANDS)}\n",
    )


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_help_of_a_command_needs_neither_torch_nor_gymnasium(command):
    code = (
        "import sys; from shoal.scripts.__main__ import main; code = main(sys.argv[1:])\n"
        "print([name for name in ('torch', 'gymnasium', 'matplotlib', 'tensorboardX') if name in sys.modules], code)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, command, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.splitlines()[-1] == "[] 0"
    assert f"usage: shoal {command}" in ran.stdout


def test_the_reader_of_a_pipe_may_leave(tmp_path):
    code = (
        "import sys; from shoal.scripts.command_line import run_command\n"
        "from shoal.scripts.standard_streams import printing\n"
        "def body():\n"
        "    with printing():\n"
        "        for _ in range(100_000): print('a line')\n"
        "    return 0\n"
        "sys.exit(run_command('shoal try', body))"
    )
    ran = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -n 1; exit ${PIPESTATUS[0]}', sys.executable, code],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "a line\n", "")


def test_ctrl_c_while_a_command_is_imported_is_a_clean_line(capsys, monkeypatch):
    def interrupted(_name):
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "shoal: interrupted\n"


def test_ctrl_c_in_the_imports_of_a_command_is_a_clean_line(tmp_path):
    # Stands before the library of that name and is struck by the signal while it is imported.
    (tmp_path / "tyro.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise OSError\n")
    ran = subprocess.run(
        [sys.executable, "-m", "shoal.scripts", "train"], env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "shoal: interrupted\n")
