"""Reward models that train in a minute on a laptop."""
