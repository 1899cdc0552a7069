"""Demonstrations of mending: a wrong draft marked before its first bad step, and a right answer that starts like it.

The prompt is the question with the marked draft, the response to imitate a right completion that shares the steps
before the mark (GLoRe's local refinement, `rmkit.trees.refinement`). `rmkit export --format sft` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from data_pipelines.algorithms.trees import Reading, completion_of, tree_to_convert
from data_pipelines.converters import Derived, Example, NotConvertibleError
from rmkit.ids import messages_json, parse_messages
from rmkit.trees.labels.any_correct import AnyCorrect
from rmkit.trees.refinement import MARKER, refinements
from rmkit.types import Message


@dataclass(frozen=True, kw_only=True)
class Config(Reading):
    marker: Annotated[str, "stands before the first bad step"] = MARKER
    request: Annotated[str, "what is asked for behind the question"] = (
        "Here is a draft that goes wrong at the mark. Write the solution as it should be."
    )
    right: Annotated[float, "an outcome of at least this is right"] = 0.5


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """Units of kind single, one for each wrong completion that can be mended."""
    result = tree_to_convert(example, config, no_turns="turns of a trajectory are no draft")
    known = {text: at for at, text in enumerate(example["responses"])}
    *before, question = parse_messages(example["prompt"])
    mended = refinements(result.tree, AnyCorrect(right=config.right), marker=config.marker)
    if not mended:
        raise NotConvertibleError("no wrong completion that a right one begins like")
    for one in mended:
        text, ends = completion_of(result.tree, one.right, turns=False)
        request = Message(question.role, f"{question.content}\n\n{config.request}\n\n{one.draft}", question.name)
        yield Derived(
            responses=[text],
            origins=[known.get(text)],
            prompt=messages_json((*before, request)),
            step_ends=[ends],
            n_votes=0,
        )
