"""Converters of what people and critics said of a reply."""
