"""How the number of somebody's reward model is read: the tables of an adoption file.

    [model]    source, revision, license, base, dtype, reference, remote_code ("sha256:..." of its Python files)
    [text]     what the tokenizer gets: template, system turn, special tokens, steps, length
    [head]     the tensors behind the trunk, by name
    [read]     which reader, at which tokens, which of the numbers; of a judge its profile
    [scale]    sign, mean, std, a sigmoid, and how the steps of a solution become one number
    [expect]   texts with scores that the model's card prints

`rmkit adopt MODEL --config FILE.toml` takes such a file; what it leaves out has the defaults below, unknown keys are
refused. The families that ship (`families/*.toml`) are tables of this form with a table `match` that says which folders
they are.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from rmkit import config
from rmkit.errors import ConfigError, unknown

READERS = ("column", "mixture", "token", "ratio", "pair", "judge", "remote")
RULES = ("last", "not-pad", "before-first-pad", "step-end")
_PLACES = ("source", "revision", "license", "base", "reference")  # where things lie is no part of what they are
ACTIVATIONS = ("relu", "tanh", "selu", "gelu", "silu", "sigmoid")


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """Where the model comes from."""

    source: Annotated[str, "Hub id ORG/NAME[@REVISION], or a folder"] = ""
    revision: Annotated[str, "40 hex digits"] = ""
    license: Annotated[str, "SPDX id, where its card names none"] = ""
    base: Annotated[str, "the model it was made from"] = ""
    dtype: Annotated[str, "float32, bfloat16 or float16 on a GPU (default: as published)"] = ""
    reference: Annotated[str, "reader ratio: the model that log-probabilities are measured against"] = ""
    remote_code: Annotated[str, "sha256:... of its Python files, which --trust-remote-code prints and allows"] = ""


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """How a conversation becomes ids."""

    template: Annotated[str, "own, a FILE.jinja, a Jinja text, or a text with {q} and {a} for one question"] = "own"
    system: Annotated[str, "none, keep-empty, or the text of a system turn where the prompt has none"] = "none"
    reasoning: Annotated[Literal["keep", "strip"], "what a response's model thought: judged with it, or not"] = "keep"
    special: Annotated[Literal["once", "none", "twice", "bos"], "the tokenizer's own special tokens at the ends"] = (
        "once"
    )
    append: Annotated[Any, "id or text of a token behind every text, or eos"] = None
    header: Annotated[Literal["prompt", "response"], "ratio: what the header of the answer's turn belongs to"] = (
        "prompt"
    )
    close_with_eos: Annotated[bool, "newlines stripped, then a blank and EOS unless the text ends with EOS"] = False
    segments: Annotated[int, "2: question and answer as the two segments of an encoder"] = 1
    max_tokens: Annotated[int, "0: as many as the model has positions"] = 0
    cut: Annotated[Literal["refuse", "left", "right"], "what happens to longer texts"] = "refuse"
    newlines: Annotated[Literal["keep", "space"], "space: newlines inside of messages become blanks"] = "keep"
    separator: Annotated[str, "where a response without step marks is split"] = "\n\n"
    join: Annotated[str, "between steps"] = ""
    step: Annotated[str, "the text of a step: {s}, and {n} for its number from 1"] = "{s}"
    after_step: Annotated[str, "a token or text behind every step"] = ""
    step_turn: Annotated[str, "each step is a user turn, answered by this"] = ""
    frame: Annotated[str, "pair: the user turn that shows {q}, {a} and {b}"] = ""
    inner: Annotated[str, "pair: the Jinja text of the conversation in {q}; without one it is one question"] = ""
    generation_prompt: Annotated[bool, "pair: the template opens the answer's turn"] = False
    max_source_tokens: Annotated[int, "pair: of the question; the responses share what is left of max_tokens"] = 0
    apart: Annotated[bool, "prompt, steps and what stands behind them are tokenized one by one"] = False

    def __post_init__(self) -> None:
        if self.segments not in (1, 2):
            raise ConfigError(f"text.segments: expected 1 or 2, got {self.segments}")
        if self.append is not None and not isinstance(self.append, int | str):
            raise ConfigError(f"text.append: expected an id or a token, got {self.append!r}")


@dataclass(frozen=True, kw_only=True)
class GateTable:
    """Weights that the text itself decides: softmax(layers(state at `at`) / temperature) * scale."""

    layers: Annotated[Any, "a prefix whose numbered layers are taken in order, or a list"] = ""
    act: Annotated[str, f"between layers: {', '.join(ACTIVATIONS)}"] = "relu"
    temperature: float = 1.0
    scale: Annotated[Any, "a number or a tensor"] = 1.0
    softmax: bool = True
    at: Annotated[Any, "where the state is read: as read.at; default the place of the rewards"] = None


@dataclass(frozen=True, kw_only=True)
class GroupTable:
    """Neighboring outputs that are one number together."""

    size: int
    by: Annotated[Literal["mean", "first", "expectation"], "expectation: softmax over bins from 0 to 1"] = "mean"


@dataclass(frozen=True, kw_only=True)
class HeadTable:
    """The tensors that make numbers of the trunk's states."""

    prefix: Annotated[str, "what stands before the trunk's names (default: as transformers names them)"] = "model."
    linear: Annotated[str, "the one layer, NAME.weight with NAME.bias where there is one"] = ""
    mlp: Annotated[tuple[str, ...], "layers by name and activations between them"] = ()
    file: Annotated[tuple[str, ...], "further files with tensors of the head; of a .pt the stem begins the names"] = ()
    group: GroupTable | None = None
    transform: Annotated[str, "a matrix that the outputs are multiplied by"] = ""
    weights: Annotated[Any, "fixed weights of the outputs"] = None
    gate: GateTable | None = None
    pooling: Annotated[Literal["token", "mean"], "mean: the states of all tokens, averaged"] = "token"


@dataclass(frozen=True, kw_only=True)
class ReadTable:
    """Which of the numbers is the reward."""

    kind: Annotated[Literal["column", "mixture", "token", "ratio", "pair", "judge", "remote"], "the reader"]
    at: Annotated[
        Any, "last, not-pad, before-first-pad, step-end, {last=ID}, {each=ID}, {before=ID}, {match=[IDS]}"
    ] = "last"
    column: Annotated[int, "which output"] = 0
    minus: Annotated[int | None, "an output that is taken away from it"] = None
    softmax: Annotated[Any, "column: the label (or labels) whose probability counts; token: ids, the first counts"] = (
        None
    )
    logit: Annotated[int | None, "token: the id whose raw logit counts"] = None
    profile: Annotated[str, "judge: a name of `rmkit judge profiles`, a TOML of yours, or pairwise, scale ..."] = ""
    settings: Annotated[dict[str, Any], "judge: keys of a judge's TOML, rubric or votes"] = field(default_factory=dict)
    judge: Annotated[dict[str, Any], "judge: the profile's table, as adopting records it"] = field(default_factory=dict)
    field: Annotated[str, "remote: the output's name"] = "logits"
    beta: Annotated[float, "ratio: factor of the log-ratio"] = 1.0
    cumulative: Annotated[bool, "ratio: steps get the sum up to their end"] = False
    choices: Annotated[tuple[str, ...], "pair: the tokens that name the first and the second response"] = ()

    def __post_init__(self) -> None:
        at = self.at
        if isinstance(at, str) and at not in RULES:
            raise ConfigError(f"read.at: {unknown('rule', at, RULES)}")
        if isinstance(at, Mapping) and (len(at) != 1 or next(iter(at)) not in ("last", "each", "before", "match")):
            raise ConfigError(f"read.at: expected one of last, each, before, match with its ids, got {dict(at)}")


@dataclass(frozen=True, kw_only=True)
class ScaleTable:
    """From the number read to the score: sign * (x - mean) / (std + eps), `of` it."""

    sign: Annotated[int, "-1 where higher is worse"] = 1
    mean: Annotated[Any, "a number or a tensor's name"] = 0.0
    std: Annotated[Any, "the same; NAME:sqrt takes the root of a variance"] = 1.0
    eps: float = 0.0
    when: Annotated[str, "mean and std apply only where the model's config has this key true"] = ""
    of: Annotated[Literal["", "sigmoid"], "what is applied last"] = ""
    aggregate: Annotated[Literal["min", "mean", "last", "product"], "steps to one number"] = "min"

    def __post_init__(self) -> None:
        if self.sign not in (1, -1):
            raise ConfigError(f"scale.sign: expected 1 or -1, got {self.sign}")


@dataclass(frozen=True, kw_only=True)
class ExpectTable:
    """What its authors print: [prompt, response, score] each; RewardBench as {value = ..., priors = ...}."""

    texts: tuple[Any, ...] = ()
    tolerance: float = 0.05
    rewardbench: Annotated[dict[str, Any], "value, and whether prior sets are in it"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in self.texts:
            fits = isinstance(one, Sequence) and not isinstance(one, str) and len(one) == 3
            if not (fits and isinstance(one[2], int | float) and all(isinstance(text, str) for text in one[:2])):
                raise ConfigError(f"expect.texts: expected [prompt, response, score], got {one!r}")


@dataclass(frozen=True, kw_only=True)
class MatchTable:
    """Which folders a family is: everything that is named must hold."""

    architectures: tuple[str, ...] = ()
    tensors: Annotated[tuple[str, ...], "names that must be there"] = ()
    config: Annotated[dict[str, Any], "keys of config.json with their values; true: any value"] = field(
        default_factory=dict
    )
    files: tuple[str, ...] = ()
    hub: Annotated[tuple[str, ...], "beginnings of Hub ids, where the files alone cannot tell"] = ()


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One reward model's tables; `family` names the shipped ones it began with."""

    read: ReadTable
    model: SourceTable = field(default_factory=SourceTable)
    text: TextTable = field(default_factory=TextTable)
    head: HeadTable = field(default_factory=HeadTable)
    scale: ScaleTable = field(default_factory=ScaleTable)
    expect: ExpectTable = field(default_factory=ExpectTable)
    family: str = ""
    title: str = ""
    note: Annotated[str, "what is not known of the family"] = ""
    match: MatchTable = field(default_factory=MatchTable)

    def __post_init__(self) -> None:
        if self.read.kind == "pair" and self.expect.texts:
            raise ConfigError("expect.texts: a model that compares two responses has no score of a single one")

    @property
    def in_steps(self) -> bool:
        """Whether the number is read at every step."""
        at = self.read.at
        return at == "step-end" or (isinstance(at, Mapping) and next(iter(at)) in ("each", "before"))

    def as_json(self) -> dict[str, Any]:
        """The tables as they are stored and hashed: what differs from the defaults, without where models lie."""
        empty = asdict(Profile(read=ReadTable(kind=self.read.kind)))
        document: dict[str, Any] = {"read": {"kind": self.read.kind}}
        for name, table in asdict(self).items():
            if name in ("family", "title", "note", "match"):
                continue
            changed = {key: value for key, value in table.items() if value != empty[name][key] and key not in _PLACES}
            if changed:
                document[name] = document.get(name, {}) | changed
        return document


def profile_of(tables: Mapping[str, Any], *, where: str) -> Profile:
    """The profile of parsed tables. Raises ConfigError, beginning with `where`, for unknown keys and wrong values."""
    if "kind" not in (tables.get("read") or {}):
        raise ConfigError(f"{where}: read.kind is needed, one of {', '.join(READERS)}")
    return config.build(Profile, tables, where=where)


def read_profile(path: Path) -> dict[str, Any]:
    """The tables of an adoption file; a template file beside it is read in."""
    tables = config.read_toml(path)
    text = tables.get("text")
    if isinstance(text, dict) and str(text.get("template", "")).endswith(".jinja"):
        template = path.parent / text["template"]
        if not template.is_file():
            raise ConfigError(f"{path}: text.template: no such file: {template}")
        text["template"] = template.read_text()
    return tables


@cache
def families() -> dict[str, Profile]:
    """The families that ship, by name."""
    listed: dict[str, Profile] = {}
    for file in sorted(files("rmkit.models.adopted").joinpath("families").iterdir(), key=lambda one: one.name):
        if file.name.endswith(".toml"):
            for name, tables in tomllib.loads(file.read_text()).items():
                listed[name] = profile_of({**tables, "family": name}, where=f"{file.name}: {name}")
    return listed


def family(name: str) -> Profile:
    """The shipped family of that name. Raises ConfigError for another."""
    if name not in families():
        raise ConfigError(unknown("family", name, list(families())))
    return families()[name]


def places(profile: Profile) -> dict[str, str]:
    """Where a profile says that its model, its base and its reference lie."""
    values = asdict(profile.model)
    return {name: values[name] for name in _PLACES if values[name]}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables with the keys of `over` put over those of `base`, table by table."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return result
