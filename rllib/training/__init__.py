"""What surrounds a run: checkpoints, evaluation beside training, callbacks, curves, progress, films.

Importing this package imports none of its modules.
"""
