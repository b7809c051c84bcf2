"""Reinforcement learning on shoal's core: what every algorithm is built from.

  policies        what acts: spaces, nets, distributions, weights, normalisation
  inference       actors that act for rollout workers, and how requests become batches
  rollouts        the gathering of experience: rollouts, their batches, the workers, whole episodes
  learning        gradient steps: advantages, minibatches, learners in numpy and torch
  learner_groups  many learners as one
  evolution       numbered noise, exact sums, candidates and those who play them
  training        what surrounds a run: checkpoints, evaluation, curves, callbacks

`algorithm.py` puts them together; `config`, `streams`, `threads` and `worker_set` are for all of them.
Importing this package imports none of them: rollout workers take what they need, and that is never torch.
"""
