"""Models over time: aliases behind a gate, the leaderboard, ratings and model cards."""
