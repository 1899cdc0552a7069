"""Where to search on from: beginnings of the best answer of prompts whose answers vary (ReST-RL, `rmkit.trees.starts`).

Each beginning becomes a unit of its own: the prompt, and as response the lines that are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data_pipelines.algorithms.trees import Reading, tree_to_convert
from data_pipelines.converters import Derived, Example, NotConvertibleError
from rmkit.ids import assistant_message, parse_messages
from rmkit.trees.starts import Starts
from rmkit.types import Completion


@dataclass(frozen=True, kw_only=True)
class Config(Starts, Reading):
    """`seed` of the lines that are drawn."""

    seed: int = 0


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """Units of kind single without a label."""
    rewards = tree_to_convert(example, config, no_turns="turns of a trajectory are no lines of an answer").outcome
    if not config.varied(rewards):
        raise NotConvertibleError("its rewards hardly differ")
    texts = [Completion(parse_messages(text)).text for text in example["responses"]]
    prefixes = config.prefixes(texts, rewards, seed=config.seed)
    if not prefixes:
        raise NotConvertibleError("no good answer of several lines")
    for prefix in prefixes:
        yield Derived(responses=[assistant_message(prefix)], origins=[None], n_votes=0)
