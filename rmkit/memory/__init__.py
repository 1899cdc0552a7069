"""What was learned in words and no weights: texts with the context that they hold in, found again by nearness."""
