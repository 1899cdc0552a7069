"""`rmkit bench judge`."""
