"""Reward models that are transformers: one engine, exact under batching and prefix sharing."""
