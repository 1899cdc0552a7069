"""Published preference sets whose rows need code of their own."""
