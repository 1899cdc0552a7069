"""What steps share: near-duplicate search, vote aggregation and weighing, over plain arrays and frames."""
