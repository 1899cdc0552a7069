"""Steps that make trees of rollouts, and balance what comes of them."""
