"""docs/http.md: its programs run, and its table is that of the errors."""

import re
from pathlib import Path

import pytest

from shoal.serving import errors

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "http.md").read_text("utf-8")


@pytest.mark.parametrize("program", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_its_programs_run(served, program, capsys):
    exec(program, {"url": f"http://127.0.0.1:{served.port}", "token": served.token})  # noqa: S102 - what users type
    assert "1" in capsys.readouterr().out


def test_every_error_is_in_its_table():
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")]
    for kind in errors.BY_CODE.values():
        (row,) = [row for row in rows if kind.code in re.split(r"[ |,]+", row)]
        assert str(kind.status) in row.split("|")[1]
