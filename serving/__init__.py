"""Policies that answer requests: what is asked and answered, and the ways in.

Handle calls and HTTP meet in ``interface.Policies``. A client needs ``client``, and what that needs: ``requests``,
``errors`` and ``wire``; none of them knows torch, gymnasium or the core.
"""
