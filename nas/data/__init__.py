"""Data sets: found, checked, turned into batches."""
