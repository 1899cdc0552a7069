"""What shaping costs, and what proposing prompts is worth."""
