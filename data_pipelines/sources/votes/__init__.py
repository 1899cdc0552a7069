"""Votes on pairs whose rows need code: several raters or questions a row, talks to cut, games to swap."""
