"""The `shoal` command, also `python -m shoal.scripts`: picks the command and hands it the rest of the line.

A command's module is imported only when it is called for, so that each starts as fast as it can.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

import shoal
from shoal.scripts.standard_streams import OutputError, leave, make_ready, printing, say

#: Every command and its line in the help. The module of the same name (`-` is `_`) has `main(arguments) -> exit code`.
COMMANDS = {
    "train": "train an algorithm on an environment",
    "evaluate": "play with the policy of a training run",
    "serve": "answer requests for actions, over HTTP, with the policy of a training run",
    "export": "write a policy as a file that runs without shoal (ONNX, TorchScript)",
    "zoo": "list tuned settings and the returns measured with them",
    "results": "measure the returns of the zoo's settings",
    "bench": "measure the speed of the core, and of training",
    "run-as-ray": "run a program that was written for Ray on shoal",
    "chaos": "kill workers at random, and check every result",
    "soak": "work for long and in large amounts, and look for leaks",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `shoal` command.

    Args:
      arguments: what stands behind `shoal`; None takes it from the process, which then ends with the command.

    Returns:
      The exit code.
    """
    make_ready()
    if arguments is None:
        leave(main(sys.argv[1:]))
    command, *rest = list(arguments) or ["--help"]
    if command in ("-h", "--help"):
        return _print(_help())
    if command == "--version":
        return _print(f"shoal {shoal.__version__}")
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        say(f"shoal: unknown command {command!r}{hint}; there are these: {', '.join(COMMANDS)}")
        return 2
    try:
        code: int = importlib.import_module(f"shoal.scripts.{command.replace('-', '_')}").main(rest)
    except KeyboardInterrupt:  # while importing; the commands themselves say more
        say("shoal: interrupted")
        return 130
    return code


def _print(text: str) -> int:
    try:
        with printing():
            print(text)
    except OutputError as error:
        if str(error):
            say(f"shoal: {error}")
        return 1
    return 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return f"usage: shoal COMMAND [flags]\n\n{listed}\n\n`shoal COMMAND --help` explains the flags; `shoal --version`."


if __name__ == "__main__":
    main()
