"""`rmkit judge-data`: training data for judges, one form a file."""
