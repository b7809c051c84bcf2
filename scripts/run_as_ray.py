"""`shoal run-as-ray SCRIPT ARGS...`: run a program that was written for Ray, unchanged, on shoal.

Python itself runs the program, in place of this process, so that arguments, ``__main__``, tracebacks and exit codes are
those that Python gives; all that differs is a folder on its path, whose `sitecustomize` lets ``import ray`` find shoal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from shoal.scripts.standard_streams import OutputError, printing, say

STARTUP = str(Path(__file__).parent / "startup")
USAGE = """usage: shoal run-as-ray SCRIPT [ARGS...]
       shoal run-as-ray -m MODULE [ARGS...]

Runs a Python program with `import ray` finding shoal, in it, in its workers and in the Python programs that it starts.
What stands behind is handed to Python as it is, so Python's own flags may come first (-u, -W error, -c CODE)."""


def main(arguments: Sequence[str]) -> int:
    """Become the program; returns an exit code only if that is not to be."""
    if arguments and arguments[0] not in ("-h", "--help"):
        os.execve(sys.executable, [sys.executable, *arguments], environment(os.environ))
    return _explain(is_error=not arguments)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment in which Python finds shoal as ray."""
    before = variables.get("PYTHONPATH", "")
    return {**variables, "PYTHONPATH": f"{STARTUP}{os.pathsep}{before}" if before else STARTUP}


def _explain(*, is_error: bool) -> int:
    if is_error:
        say(USAGE)
        return 2
    try:
        with printing():
            print(USAGE)
    except OutputError as error:
        if str(error):
            say(f"shoal run-as-ray: {error}")
        return 1
    return 0
