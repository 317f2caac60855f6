"""Files that a training leaves: where they are, what is in them."""
