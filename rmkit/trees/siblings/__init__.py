"""Rules that make pairs of nodes behind the same prefix, one a file."""
