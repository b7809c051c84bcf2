"""The command line: `shoal train`, `shoal evaluate`, `shoal bench`; the same as `python -m shoal.scripts train` or
`scripts/train.py`.

Each command is a module here with a `main(arguments) -> exit code`, and `__main__` dispatches; `command_line` and
`run_directory` are what they share. Scripts import shoal as a user would, by its name, and they alone call `print`.
"""
