"""Many learners as one: all-reduce, parameter servers with bounded staleness, workers that push gradients.

Importing this package imports none of its modules.
"""
