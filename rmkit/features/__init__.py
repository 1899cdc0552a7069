"""Features of texts from frozen encoders, and their cache."""
