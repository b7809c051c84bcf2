"""Reinforcement learning on shoal's core: what every algorithm is built from.

Pure mathematics and data (batch, advantages, distributions, normalization, schedules, streams, metrics), policies and
learning (weights, spaces, modules, policy, learner, torch_learner), the gathering of experience (rollout, env_runner,
worker_set), what every algorithm shares (algorithm), and what surrounds a run (config, checkpoints, evaluation, ...).
Importing this package imports none of them: rollout workers take what they need, and that is never torch.
"""
