"""What kind of rater a file speaks of: human only where a column is named for people and every name in it is one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from data_pipelines.sources.inference.columns import Column, Guess
from data_pipelines.sources.verdicts import as_text

_PEOPLE = (
    *("rater", "annotator", "worker", "labeler", "labeller", "evaluator", "participant", "prolific", "reviewer"),
    *("coder", "grader", "assessor", "who", "user"),
)
_MODEL = re.compile(
    r"gpt|claude|sonnet|opus|haiku|llama|vicuna|alpaca|tulu|olmo|gemini|gemma|palm|bard|qwen|qwq|mi[sx]tral|mixtral|"
    r"deepseek|grok|command|phi|falcon|nemotron|granite|jamba|kimi|glm|ernie|baichuan|minimax|nova|o[1345](-|$)|llm|"
    r"model|\bjudge|\bbot|\bauto|eval|\brm\b|reward|ensemble|\d+b\b|\bv\d",
    re.I,
)
_PERSON = re.compile(
    r"[^\W\d_]+([ .'_-][^\W\d_]+)*\.?"  # Ann, Ann Lee, ann.lee
    r"|[^@\s]+@[^@\s]+\.\w+"
    r"|(?:rater|annotator|ann|worker|wk|user|coder|grader|expert|crowd|labell?er|evaluator|reviewer|participant|person|"
    r"turker|author|member|staff|team|id|[a-z])?[ _.#-]?\d+"  # annotator 3, w07, 12
    r"|[0-9a-f]{8,}|[0-9a-f-]{32,36}|A[0-9A-Z]{9,}",  # ids of crowd platforms
    re.I,
)


def is_person(name: str) -> bool:
    """Whether a name may be a person's name or number, and is none that a model goes by."""
    return bool(_PERSON.fullmatch(name.strip())) and not _MODEL.search(name)


def kind_of(names: Iterable[str]) -> str:
    """human where every name may be a person's, else unknown."""
    return "human" if all(map(is_person, names)) else "unknown"


def take_kind(result: Guess, columns: Mapping[str, Column], wide: Sequence[str], models: Iterable[str]) -> None:
    """The kind of the raters of a sample; a rater who also wrote replies (`models`) is no person."""
    name = result.roles.get("rater")
    if name is None or name not in columns:
        result.kind = kind_of(wide) if wide else ""
        return
    people = any(word in name.lower() for word in _PEOPLE)
    values = {as_text(value) for value in columns[name].values if not isinstance(value, Mapping | list)}
    result.kind = kind_of(values) if people and values.isdisjoint(models) else "unknown"
    if result.why.get("rater") != "--map":
        result.why["rater"] = f"{len(values)} distinct, name"
