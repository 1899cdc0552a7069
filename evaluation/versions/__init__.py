"""`rmkit eval --data`: models on one split of a dataset version."""
