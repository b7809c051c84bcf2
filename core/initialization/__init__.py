"""Beginning and end of a session in the user's process: ``init``, ``shutdown``, what they are given and return."""
