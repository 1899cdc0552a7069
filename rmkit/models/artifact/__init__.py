"""The folder of a reward model: metadata, file hashes, golden scores, model card, aliases."""
