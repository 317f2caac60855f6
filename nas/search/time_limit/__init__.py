"""A search in a given time: how the time is divided, and what it still allows."""
