"""Judges: data to train them on, and their training."""
