"""Step of loops: a policy trained on the version's train split (data_pipelines.loops.policy).

Of a pair the label's better reply against the other, its p below 1 as smoothing; of several replies the best against
the worst, by their label or, where they have none, by their scores in `aspect`; a single one is there to imitate. With
`grpo` all replies and their scores (data_pipelines.loops.group_policy). Rows that decide nothing, and with `dpo` single
replies, are left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from data_pipelines.algorithms.responses import rewards_of
from data_pipelines.loops.group_policy import PolicyGroup, train_groups
from data_pipelines.loops.policy import PolicyConfig, PolicyPair, train_policy
from data_pipelines.loops.records import Left, Place
from rmkit.atomic import draft_folder, put
from rmkit.data.example import Example
from rmkit.errors import ConfigError, DataError
from warehouse.versions.dataset import load_dataset


@dataclass(frozen=True, kw_only=True)
class Config(PolicyConfig):
    model: Annotated[str, "folder of the causal language model to start from"]
    reference: Annotated[str, "the one that dpo is measured against; empty: `model`"] = ""
    splits: Annotated[tuple[str, ...], "rows to train on; rows without a split count too"] = ("train",)
    aspect: Annotated[str, "scores to learn from where there is no label, and by grpo; empty: the only ones"] = ""
    seed: Annotated[int, "of the order of the pairs"] = 0

    def __post_init__(self) -> None:
        PolicyConfig.__post_init__(self)
        if not self.model:
            raise ConfigError("train_policy: name the model: model = FOLDER")


def act(config: Config, place: Place) -> Left:
    """The folder of the trained policy. Raises DataError where no row is of use."""
    from rmkit.models.transformer.pretrained import load_pretrained, load_tokenizer

    rows = [one for one in load_dataset(place.version) if (one.row["split"] or "train") in config.splits]
    taught, unused = _taught(rows, config)
    if not taught:
        reasons = "; ".join(f"{reason}: {n}" for reason, n in unused.items())
        raise DataError(f"train_policy: none of {len(rows)} rows of {place.version} can be learned from ({reasons})")
    if missing := [one for one in (config.model, config.reference) if one and not Path(one).is_dir()]:
        raise ConfigError(f"train_policy: no folder {missing[0]}; a policy is the folder of a causal language model")
    folders = [Path(config.model)] + ([Path(config.reference or config.model)] if config.loss == "dpo" else [])
    model, *reference = (load_pretrained("AutoModelForCausalLM", one, dtype="float32").model for one in folders)
    tokenizer = load_tokenizer(folders[0])
    part = PolicyConfig(**{field.name: getattr(config, field.name) for field in fields(PolicyConfig)})
    if config.loss == "grpo":
        facts = train_groups(model, tokenizer, taught, config=part, seed=config.seed)
    else:
        base = reference[0] if reference else None
        facts = train_policy(model, base, tokenizer, taught, config=part, seed=config.seed)
    with draft_folder(place.folder) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        put(draft, place.folder, replace=True)
    return Left({**facts, "unused": sum(unused.values())}, artifact=place.folder)


def _taught(rows: Iterable[Example], config: Config) -> tuple[list[Any], Counter[str]]:
    if config.loss == "grpo":
        return groups(rows, aspect=config.aspect)
    return lessons(rows, loss=config.loss, aspect=config.aspect)


def groups(examples: Iterable[Example], *, aspect: str = "") -> tuple[list[PolicyGroup], Counter[str]]:
    """Each row's replies with their scores, and the reasons of the rows that have none."""
    result, unused = list[PolicyGroup](), Counter[str]()
    for example in examples:
        rewards = rewards_of(example.row, aspect) if example.row["scores"] and example.row["weight"] else None
        if rewards is None or len(rewards) < 2:
            unused["no scores of two responses, or no weight"] += 1
            continue
        item = example.candidates
        result.append(PolicyGroup(item.prompt, tuple(one.text for one in item.completions), tuple(rewards)))
    return result, unused


def lessons(examples: Iterable[Example], *, loss: str, aspect: str = "") -> tuple[list[PolicyPair], Counter[str]]:
    """What a policy can learn from each row, and the reasons of the rows that teach nothing."""
    pairs, unused = list[PolicyPair](), Counter[str]()
    for example in examples:
        lesson = _lesson(example, loss, aspect)
        if isinstance(lesson, str):
            unused[lesson] += 1
        else:
            pairs.append(lesson)
    return pairs, unused


def _lesson(example: Example, loss: str, aspect: str) -> PolicyPair | str:
    row = example.row
    if not row["responses"] or row["weight"] == 0:
        return "no response, or no weight"
    item = example.candidates
    texts = [completion.text for completion in item.completions]
    if len(texts) == 1:
        return PolicyPair(item.prompt, texts[0], None) if loss == "nll" else "one response alone"
    p = row["p"] or [None]
    values = p if None not in p else [None if rank is None else -rank for rank in row["ranks"] or [None]]
    if row["scores"] and not row["p"] and not row["ranks"]:
        values = rewards_of(row, aspect) or [None]
    if None in values or max(values) == min(values):
        return "undecided"
    best, worst = values.index(max(values)), values.index(min(values))
    alpha = 1 - p[best] if len(texts) == 2 and None not in p else 0.0
    return PolicyPair(item.prompt, texts[best], texts[worst], alpha)
