"""What one candidate costs and scores, the study that remembers it, the bundle that takes it
home.
"""

__version__ = "0.1.0"
