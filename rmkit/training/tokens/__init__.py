"""Rows encoded once, on disk: what training reads instead of texts, shared by ranks, seeds and resumed runs."""
