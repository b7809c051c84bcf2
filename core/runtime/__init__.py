"""What drivers and workers have in common: owning objects, submitting work; and what workers add: running it."""
