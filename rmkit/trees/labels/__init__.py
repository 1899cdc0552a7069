"""Rules that give each node of a tree a number, one a file."""
