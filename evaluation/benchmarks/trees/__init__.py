"""Step labels, prover progress, search and shared prefixes, where the truth is planted."""
