"""Reinforcement learning on shoal's core: what every algorithm is built from.

Pure mathematics and data (batch, advantages, distributions, schedules, metrics), networks and learning (modules,
policy, learner), the actors that gather experience (env_runner, worker_set), and what surrounds a run (config,
checkpoints, evaluation, loggers, progress). Importing this package imports none of them: rollout workers take what
they need, and that is never torch.
"""
