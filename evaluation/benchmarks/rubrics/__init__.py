"""Benchmarks of rubrics and hard rules."""
