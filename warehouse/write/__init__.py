"""What enters the warehouse: units and judgments, staged and loaded in bulk."""
