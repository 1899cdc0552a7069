"""Reward models whose weights sit in another server: the model that asks, and one file a kind of server."""
