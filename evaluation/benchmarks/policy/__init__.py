"""`rmkit bench policy`."""
