"""Patterns of use, written on the public API alone: ActorPool, Queue, multiprocessing.Pool, as_completed.

Nothing here knows how the core works; what a pattern cannot do through `api`, the API lacks. Users import these under
Ray's names, `shoal.util.queue` and so on: see core/ray_compat/ray_names.py.
"""
