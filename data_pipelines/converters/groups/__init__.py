"""Converters of groups: a row is what policies answered to one prompt, with ratings."""
