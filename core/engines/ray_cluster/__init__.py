"""The engine of a Ray cluster. Only this package imports ray, and only `initialization` imports this package."""
