"""A causal language model as a judge, named in one line instead of a TOML.

    judge:FOLDER_OR_ID                              compares pairs, in both orders
    judge:FOLDER_OR_ID?prompt=scale&highest=5       rates each response alone
    judge:FOLDER_OR_ID?profile=rm-r1                asked and read as a judge of that family is
    judge:Qwen/Qwen3-4B?prompt=yes_no&backend=vllm&rubric=Is it correct?

`prompt` is a form (pairwise, scale, yes_no, listwise) or a Jinja file of yours, `profile` a name of `rmkit judge
profiles` or a TOML file of yours; the other keys are those of the tables [judge] and [generator]. Without prompt and
profile, a model that a shipped profile is for is judged by it. The same settings in a TOML are the same judge,
fingerprint and paid calls included.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from rmkit.config import assignments, build
from rmkit.errors import UsageError, unknown
from rmkit.generate import Budget, Engine
from rmkit.generate.config import GeneratorConfig, open_generator
from rmkit.judge.config import JudgeConfig, for_profile, judge_config
from rmkit.judge.model import Judge
from rmkit.judge.profile import Profile, detected
from rmkit.judge.prompt_file import PromptFile
from rmkit.ledger import open_ledger
from rmkit.models.adopted.source import open_source

PREFIX = "judge:"
FORMS = ("pairwise", "scale", "yes_no", "listwise")
_OF_JUDGE = {field.name for field in fields(JudgeConfig)}
_OF_GENERATOR = ("backend", "batch_size")


def read_line(line: str) -> tuple[JudgeConfig, GeneratorConfig, Profile | None, Path | None]:
    """The judge, its generator, its profile, and the prompt file where it names one.

    Raises UsageError for an unknown key, ConfigError for a wrong value, ModelError where there is no such model.
    """
    address, _, query = line.removeprefix(PREFIX).partition("?")
    if not address:
        raise UsageError(f"{line}: name the judge's model: judge:FOLDER or judge:ORG/NAME")
    values: dict[str, Any] = assignments(filter(None, query.split("&")))
    for key in values:
        if key not in _OF_JUDGE and key not in _OF_GENERATOR:
            raise UsageError(f"{line}: {unknown('key', key, [*sorted(_OF_JUDGE), *_OF_GENERATOR])}")
    source = open_source(address)
    if not {"prompt", "form", "profile"} & set(values) and (known := detected(hub=source.hub, folder=source.folder)):
        values["profile"] = known.name
    file = None
    if not values.get("profile"):
        prompt = str(values.pop("prompt", values.get("form", "pairwise")))
        values["form"] = prompt if prompt in FORMS else str(values.get("form", "pairwise"))
        file = None if prompt in FORMS else Path(prompt)
    named = {key: values.pop(key) for key in _OF_GENERATOR if key in values}
    folder = str(source.folder.resolve())
    generator = build(GeneratorConfig, {"backend": "local", **named, "model": folder}, where=line)
    way = values.get("form") or Path(str(values["profile"])).stem
    name = str(values.pop("name", f"{Path(address.partition('@')[0]).name}-{way}"))
    config, profile = judge_config({**values, "name": name}, where=line)
    return config, for_profile(generator, profile), profile, file


def load(line: str) -> Judge:
    """The judge of a line, its calls cached in this home's ledger. Raises as `read_line`, and ModelError for a folder
    that holds no language model."""
    config, generator, profile, file = read_line(line)
    engine = Engine(
        open_generator(generator),
        ledger=open_ledger(),
        budget=Budget(),
        limits=generator.limits,
        purpose=f"judge {config.name}",
    )
    return Judge(config, engine, prompt=PromptFile(file) if file else None, profile=profile)
