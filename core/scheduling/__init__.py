"""Where work runs: what a machine offers, labels, bundles, scheduling strategies. Deciding is the node's."""
