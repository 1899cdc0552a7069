"""Examples, pairs and export folders: what training and evaluation read."""
