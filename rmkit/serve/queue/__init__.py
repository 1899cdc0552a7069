"""From requests to batches: fair queue, batcher, engine."""
