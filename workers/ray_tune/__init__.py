"""Candidates as trials of Ray Tune."""
