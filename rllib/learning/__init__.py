"""What takes gradient steps: advantages and V-trace, minibatches, learners in numpy and in torch, Adam, schedules.

Importing this package imports none of its modules.
"""
