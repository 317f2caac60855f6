"""Candidates replayed from recorded trainings."""
