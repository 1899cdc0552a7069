"""Self-play pairs: the human answer over what the policy itself answers (SPIN, arXiv:2401.01335).

The policy's name ends with its iteration: NAME-0, NAME-1 ... An iteration trains on its own pairs and, from the second
on, on those of the iteration before. The human answers are the corrections, else the reference, else the responses that
the policy did not write. Equal texts are no pair. Where a judge of the two is right half of the time, the policy has
arrived and the rounds end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from data_pipelines.converters import Derived, Example, NotConvertibleError, authors
from rmkit.errors import ConfigError
from rmkit.ids import assistant_message


@dataclass(frozen=True, kw_only=True)
class Config:
    policy: Annotated[str, "the author's name without its iteration; needed"] = ""
    iteration: Annotated[int, "the newest iteration that is used"] = 0
    previous: Annotated[bool, "take the pairs of the iteration before, too"] = True

    def __post_init__(self) -> None:
        if self.iteration < 0:
            raise ConfigError(f"self_play: iterations count from 0, got {self.iteration}")


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """(human, own) with p = [1, 0] for each human and each own answer; `iteration` in meta."""
    if not config.policy:
        raise ConfigError("self_play: name the policy: --set policy=NAME (its authors are NAME-0, NAME-1 ...)")
    iterations = [_iteration(author, config.policy) for author in authors(example)]
    first = config.iteration - (1 if config.previous else 0)
    own = [at for at, one in enumerate(iterations) if one is not None and first <= one <= config.iteration]
    if not own:
        raise NotConvertibleError("no answer of the policy in these iterations")
    texts = example["responses"]
    human = dict.fromkeys(vote["edit"] for vote in example["votes"] if vote["edit"])
    if not human and example["reference"]:
        human = {assistant_message(example["reference"]): None}
    if not human:
        human = {text: None for text, one in zip(texts, iterations, strict=True) if one is None}
    if not human:
        raise NotConvertibleError("no human answer")
    place = {text: at for at, text in enumerate(texts)}
    pairs = [(text, at) for text in human for at in own if text != texts[at]]
    if not pairs:
        raise NotConvertibleError("the policy answers as people do")
    for text, at in pairs:
        yield Derived(
            responses=[text, texts[at]],
            origins=[place.get(text), at],
            p=[1.0, 0.0],
            ranks=[0, 1],
            n_votes=0,
            meta={"iteration": iterations[at]},
        )


def _iteration(author: str, policy: str) -> int | None:
    """The iteration that an author's name ends with; None for another author."""
    match = re.fullmatch(rf"{re.escape(policy)}-(\d+)", author)
    return int(match[1]) if match else None
