"""A bundle's files for mmdetection 3: backbone, trained detector and configuration."""
