"""Steps that bring rubrics to the rows they were drawn from, and verdicts under rubrics to margins."""
