"""What a data set decides of its own training: a fingerprint of it, and rules."""
