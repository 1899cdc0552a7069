"""`rmkit bench crossval`."""
