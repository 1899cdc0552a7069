"""Rubrics, judges' verdicts and rewards by criterion, where a row needs code."""
