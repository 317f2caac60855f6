"""Scores of detections, and drawings of them."""
