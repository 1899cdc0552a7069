"""The small trainable heads over frozen features, and their training."""
