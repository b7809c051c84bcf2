"""Environments: making them by name and stepping many copies together. Knows nothing else of shoal."""
