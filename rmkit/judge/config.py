"""A judge as a TOML file: what it is asked, how often, and by which model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rmkit.chat.reasoning import Reasoning
from rmkit.config import build, read_toml
from rmkit.errors import ConfigError
from rmkit.generate.config import GeneratorConfig
from rmkit.judge.profile import Profile, open_profile
from rmkit.types import Scale

THIRD_TABLES = ("writer", "rubric", "jury")  # each makes another model of the judge, a jury stands alone


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    """`form` is how responses are shown: one by one (on a scale, or yes/no), in pairs, or all in one list.

    `prompt` names a Jinja file of yours, relative to the TOML; empty takes the built-in one of the form. `orders` both
    asks every pair or list in two opposite orders, given only as it comes (for benchmarks that swap themselves).
    `verdict` auto reads log-probabilities where the server gives them and parses otherwise. `rubric` is a text that
    every item is judged by. `reasoning` says whether the judge sees what a response's model thought before it spoke.
    `profile` names a family of judges (`rmkit judge profiles`), or a TOML file with one: prompt and reading are then
    the profile's, and so is what is left out here.
    """

    name: str
    form: Literal["scale", "yes_no", "pairwise", "listwise"] = "pairwise"
    prompt: str = ""
    profile: str = ""
    rubric: str = ""
    orders: Literal["both", "given"] = "both"
    votes: int = 1
    temperature: float = 0.0
    max_tokens: int = 1024
    verdict: Literal["auto", "parse"] = "auto"
    top_logprobs: int = 10
    lowest: int = 1
    highest: int = 10
    ties: bool = False
    reasoning: Reasoning = "keep"

    def __post_init__(self) -> None:
        if self.votes < 1 or self.max_tokens < 1 or self.temperature < 0:
            raise ConfigError("judge: votes and max_tokens must be at least 1, temperature at least 0")
        if self.votes > 1 and self.temperature == 0:
            raise ConfigError(f"judge: {self.votes} votes at temperature 0 are one vote; set temperature, say 0.7")
        if self.lowest >= self.highest:
            raise ConfigError(f"judge: lowest must be below highest, got {self.lowest} and {self.highest}")
        if self.ties and self.form != "pairwise":
            raise ConfigError("judge: ties is for the form pairwise (a list may always say =)")
        if not 0 <= self.top_logprobs <= 20:
            raise ConfigError(f"judge: top_logprobs must be 0 to 20, got {self.top_logprobs}")

    @property
    def scale(self) -> Scale:
        """What a score of such a judge means."""
        scales: dict[str, Scale] = {"yes_no": "probability", "pairwise": "win_logit"}
        return scales.get(self.form, "rating")

    @property
    def pointwise(self) -> bool:
        """Whether each response is judged alone."""
        return self.form in ("scale", "yes_no")


def judge_config(values: Mapping[str, Any], *, where: str, folder: Path = Path()) -> tuple[JudgeConfig, Profile | None]:
    """The settings of a judge, and its profile where they name one, whose own settings stand behind these.

    Raises ConfigError for unknown keys and values that do not go together.
    """
    if not values.get("profile"):
        return build(JudgeConfig, values, where=where), None
    profile = open_profile(str(values["profile"]), folder=folder)
    return under_profile(values, profile, where=where), profile


def under_profile(values: Mapping[str, Any], profile: Profile, *, where: str) -> JudgeConfig:
    """The settings of a judge with those of a profile behind them. Raises ConfigError as `judge_config`."""
    if values.get("prompt") or values.get("form", profile.form) != profile.form:
        raise ConfigError(
            f"{where}: profile {profile.name} brings its own prompt, of the form {profile.form}; leave out prompt and "
            "form"
        )
    return build(JudgeConfig, {"verdict": "parse", **profile.settings, **values, "form": profile.form}, where=where)


def for_profile(generator: GeneratorConfig, profile: Profile | None) -> GeneratorConfig:
    """The generator with what a profile asks of the chat template; what its own table says comes first."""
    if profile is None or not (options := profile.template_options()):
        return generator
    named = {**options, **generator.extra.get("chat_template_kwargs", {})}
    return replace(generator, extra={**generator.extra, "chat_template_kwargs": named})


def read_judge(path: Path) -> tuple[JudgeConfig, GeneratorConfig, Profile | None]:
    """The judge, its generator and its profile from a TOML file with the tables [judge] and [generator].

    A third table makes more of it: [writer] names the model that writes rubrics, [rubric] the file whose criteria are
    asked one by one (see `rubrics`). Raises ConfigError naming the file and
    the key that is wrong.
    """
    tables = read_toml(path)
    if unknown := sorted(set(tables) - {"judge", "generator", *THIRD_TABLES}):
        raise ConfigError(f"{path}: unknown {', '.join(unknown)}; a judge has the tables [judge] and [generator]")
    for table in ("judge", "generator"):
        if not isinstance(tables.get(table), dict):
            raise ConfigError(f"{path}: no table [{table}]; a judge has the tables [judge] and [generator]")
    config, profile = judge_config(tables["judge"], where=f"{path} [judge]", folder=path.parent)
    generator = _beside(path, build(GeneratorConfig, tables["generator"], where=f"{path} [generator]"))
    return config, for_profile(generator, profile), profile


def _beside(path: Path, config: GeneratorConfig) -> GeneratorConfig:
    """A model folder is named relative to the TOML, so that both can be moved together."""
    folder = path.resolve().parent / config.model
    return replace(config, model=str(folder.resolve())) if config.backend != "endpoint" and folder.is_dir() else config


def third_table(path: Path) -> str | None:
    """The name of the table beside [judge] and [generator], None where there is none. Raises ConfigError for two."""
    result = [table for table in THIRD_TABLES if table in read_toml(path)]
    if len(result) > 1:
        raise ConfigError(
            f"{path}: either [writer] or [rubric]: rubrics are written for each request, or stand in a file"
        )
    return result[0] if result else None


def read_writer(path: Path) -> GeneratorConfig | None:
    """The generator of the table [writer], None where there is none. Raises ConfigError as `read_judge`."""
    table = read_toml(path).get("writer")
    return None if table is None else _beside(path, build(GeneratorConfig, table, where=f"{path} [writer]"))
