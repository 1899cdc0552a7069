"""What a dataset is about: topics of its prompts, how many rows each has, and what another dataset has besides."""
