"""Self-improving loops: sample, score, select, train, again; resumable."""
