"""What processes say to each other: specs, messages, and their bytes."""
