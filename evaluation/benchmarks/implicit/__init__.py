"""`rmkit bench implicit`."""
