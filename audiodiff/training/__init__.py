"""Training: one loop, its statistics, average of weights, checkpoints and log."""
