"""The inline engine: a whole session in one process, in a fixed order, for debugging and fast tests."""
