"""One per cluster: actors, their names, exported functions."""
