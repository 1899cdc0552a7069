"""Reward models that others trained: where they lie, how their number is read, and what adopting one records."""
