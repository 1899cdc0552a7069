"""Benchmarks of the warehouse and of data steps."""
