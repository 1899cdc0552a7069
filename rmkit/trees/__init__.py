"""Trees of rollouts: completions of one prompt merged by equal prefixes, and what follows from them.

    tree = build([Path(steps=("a\\n", "b"), outcome=1.0), Path(steps=("a\\n", "c"), outcome=0.0)])
    label(tree, "mean")             [M] a number for each node, NaN where nothing is known
    siblings(tree, "extremes")      pairs of nodes with a common parent, the better one first, with confidence

Rules are frozen dataclasses of their options, one a file in `labels` and `siblings`; a tree is a view, never stored.
"""
