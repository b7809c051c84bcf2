"""The command line: `shoal train`, `shoal evaluate`; the same as `python -m shoal.scripts train` or `scripts/train.py`.

Each module here is one command with a `main(arguments) -> exit code`; `__main__` dispatches. The only place in shoal
that prints. Scripts use shoal as a user would, by `import shoal`.
"""
