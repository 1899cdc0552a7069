"""`rmkit bench judge-training`."""
