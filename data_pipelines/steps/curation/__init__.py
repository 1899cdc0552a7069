"""Steps that curate: what texts hold, what language they are in, which say the same, and when they were known."""
