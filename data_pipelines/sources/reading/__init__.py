"""Bytes to rows: text lines, JSON arrays, tables and hub datasets, bounded in memory."""
