"""Training: a recipe and a data set in, checkpoints out."""
