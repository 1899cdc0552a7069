"""Recipes: a TOML of steps, the runner that resumes them, and the record of what they did."""
