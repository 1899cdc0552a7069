"""From raw rewards to what a trainer learns from: a chain of small transforms over groups of completions, numpy only.

    group = Group.of(reward=[1, 0, None, 3], group=["a", "a", "a", "b"])
    shaped = chain(["z_score", {"use": "clip", "max": 2}]).apply(group)["reward"]

A chain is a name, a table with `use` and options, or a list of them; the same in TOML, JSON and Python. `primitives`
are the few transforms, one a file; `presets/*.toml` are the papers, chains over them with the paper's numbers.
"""

from rmkit.shaping.chain import Chain, chain
from rmkit.shaping.group import Column, Group

__all__ = ["Chain", "Column", "Group", "chain"]
