"""The Optuna study in SQL: reading it needs no PyTorch."""
