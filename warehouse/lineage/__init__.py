"""Everything known about a row: provenance, runs, audits; as data and as text."""
