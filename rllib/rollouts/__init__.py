"""What gathers experience: the rollout, its batch, the worker that makes it, whole episodes, and rollouts as they come.

Importing this package imports none of its modules.
"""
