"""Decides what is trained next, and keeps what came of it."""
