"""Policy documents as rows: the system message's clauses become the rubric, and the prompt goes without the document.

A policy model that learns from such rows answers by the document without reading it (policy internalization, TriMPI);
a judge checks the reply clause by clause. A clause is a numbered or bulleted line with what is indented below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from data_pipelines.converters import Derived, Example, NotConvertibleError
from rmkit.errors import ConfigError
from rmkit.ids import messages_json, parse_messages
from rubrics.criteria import Criterion, rubric_json

_CLAUSE = re.compile(r"^ {0,3}(?:[-*•]|\(?(?:\d+(?:\.\d+)*|[a-z])[.)])\s+(?=\S)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Config:
    least: Annotated[int, "clauses that a document has at least"] = 2
    keep_document: Annotated[bool, "leave the document in the prompt"] = False

    def __post_init__(self) -> None:
        if self.least < 1:
            raise ConfigError(f"policy_clauses: least must be at least 1, got {self.least}")


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """The same unit with the clauses as rubric; its label goes along."""
    conversation = parse_messages(example["prompt"])
    documents = [message.content for message in conversation if message.role == "system"]
    clauses = [clause for document in documents for clause in clauses_of(document)]
    if len(clauses) < config.least:
        raise NotConvertibleError("no policy document of several clauses")
    if len(documents) == len(conversation):
        raise NotConvertibleError("nothing but the document")
    rest = tuple(message for message in conversation if message.role != "system")
    n = len(example["responses"])
    yield Derived(
        responses=example["responses"],
        origins=range(n),
        kind=example["kind"],
        prompt=None if config.keep_document else messages_json(rest),
        rubric=rubric_json(Criterion(criterion=clause) for clause in clauses),
        step_ends=example["step_ends"],
        p=example["p"],
        ranks=example["ranks"],
        margin=example["margin"],
        scores=[(one["response"], one["aspect"], one["value"]) for one in example["scores"] or ()],
        step_labels=example["step_labels"],
        n_votes=example["n_votes"],
    )


def clauses_of(document: str) -> list[str]:
    """The clauses of a document in its order, each on one line; text before the first is no clause."""
    marks = list(_CLAUSE.finditer(document))
    starts = [mark.start() for mark in marks] + [len(document)]
    paragraphs = [document[mark.end() : end].split("\n\n")[0] for mark, end in zip(marks, starts[1:], strict=True)]
    return list(dict.fromkeys(clause for one in paragraphs if (clause := " ".join(one.split()))))
