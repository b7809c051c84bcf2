"""What evolution strategies are built from: numbered noise, exact sums, the worker that plays candidates, the tree.

Importing this package imports none of its modules.
"""
