"""`rmkit bench service`."""
