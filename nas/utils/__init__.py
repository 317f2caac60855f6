"""Helpers that know nothing of detectors, studies or searches."""
