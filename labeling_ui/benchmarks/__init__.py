"""Benchmarks of the studio as a running server: `rmkit bench studio` and `rmkit bench studio-scale`."""
