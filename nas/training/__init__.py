"""Training from scratch: the loop, its optimizer and schedule, its checkpoints, weights to start
from instead.
"""
