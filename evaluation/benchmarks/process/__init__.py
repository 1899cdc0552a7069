"""`rmkit bench process`."""
