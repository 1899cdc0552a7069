"""Steps with labels, in the spellings of process reward models."""
