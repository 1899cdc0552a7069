"""Selection at inference: many answers, or many steps, and scores that choose among them.

    result = select(proposer, scorer, method="beam", budget=16, aggregate="min-max")

A proposer writes steps or whole solutions (any Generator: `rmkit.search.adapters`), a scorer gives each step of a state
a number (any RewardModel). One unit of the budget is one solution's worth of steps. What was visited is a tree in the
form of `rmkit.trees.dump`: it goes back into `rmkit ingest`.
"""
