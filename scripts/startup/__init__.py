"""A folder for Python's path: `sitecustomize` in it runs when an interpreter starts. See `scripts/run_as_ray.py`."""
