"""Reinforcement learning on shoal's core: what every algorithm is built from.

Pure mathematics and data (batch, advantages, distributions, normalization, schedules, streams, metrics), policies and
learning (weights, spaces, policy, learner; modules, torch_learner; dense_nets, numpy_learner), the gathering of
experience (rollout, env_runner, worker_set), what every algorithm shares (algorithm), and what surrounds a run (config,
checkpoints, evaluation, loggers, progress).
Importing this package imports none of them: rollout workers take what they need, and that is never torch.
"""
