"""Actors that act for rollout workers, and the tables by which requests that wait become batches.

Importing this package imports none of its modules.
"""
