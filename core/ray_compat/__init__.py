"""Ray's names: module paths, classes of ids, ``import ray`` itself. Nothing in the core needs them."""
