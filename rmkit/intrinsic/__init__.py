"""Rewards distilled while labels come late: a stream of captions, three learners (ONI, arXiv:2410.23022)."""
