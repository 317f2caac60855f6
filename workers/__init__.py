"""Who runs the candidates: Ray Tune, or this process."""
