"""A causal language model as a judge, named in one line instead of a TOML.

    judge:FOLDER_OR_ID                              compares pairs, in both orders
    judge:FOLDER_OR_ID?prompt=scale&highest=5       rates each response alone
    judge:Qwen/Qwen3-4B?prompt=yes_no&backend=vllm&rubric=Is it correct?

`prompt` is a form (pairwise, scale, yes_no, listwise) or a Jinja file of yours; the other keys are those of the tables
[judge] and [generator]. The same settings in a TOML are the same judge, fingerprint and paid calls included.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from rmkit.config import assignments, build
from rmkit.errors import UsageError, unknown
from rmkit.generate import Budget, Engine
from rmkit.generate.config import GeneratorConfig, open_generator
from rmkit.judge.config import JudgeConfig
from rmkit.judge.model import Judge
from rmkit.judge.prompt_file import PromptFile
from rmkit.ledger import open_ledger
from rmkit.models.adopted.source import open_source

PREFIX = "judge:"
FORMS = ("pairwise", "scale", "yes_no", "listwise")
_OF_JUDGE = {field.name for field in fields(JudgeConfig)}
_OF_GENERATOR = ("backend", "batch_size")


def read_line(line: str) -> tuple[JudgeConfig, GeneratorConfig, Path | None]:
    """The judge, its generator, and the prompt file where it names one.

    Raises UsageError for an unknown key, ConfigError for a wrong value, ModelError where there is no such model.
    """
    address, _, query = line.removeprefix(PREFIX).partition("?")
    if not address:
        raise UsageError(f"{line}: name the judge's model: judge:FOLDER or judge:ORG/NAME")
    values: dict[str, Any] = assignments(filter(None, query.split("&")))
    for key in values:
        if key not in _OF_JUDGE and key not in _OF_GENERATOR:
            raise UsageError(f"{line}: {unknown('key', key, [*sorted(_OF_JUDGE), *_OF_GENERATOR])}")
    prompt = str(values.pop("prompt", values.pop("form", "pairwise")))
    form = prompt if prompt in FORMS else str(values.pop("form", "pairwise"))
    file = None if prompt in FORMS else Path(prompt)
    folder = open_source(address).folder
    named = {key: values.pop(key) for key in _OF_GENERATOR if key in values}
    generator = build(GeneratorConfig, {"backend": "local", **named, "model": str(folder.resolve())}, where=line)
    name = str(values.pop("name", f"{Path(address.partition('@')[0]).name}-{form}"))
    return build(JudgeConfig, {**values, "name": name, "form": form}, where=line), generator, file


def load(line: str) -> Judge:
    """The judge of a line, its calls cached in this home's ledger. Raises as `read_line`, and ModelError for a folder
    that holds no language model."""
    config, generator, file = read_line(line)
    engine = Engine(
        open_generator(generator),
        ledger=open_ledger(),
        budget=Budget(),
        limits=generator.limits,
        purpose=f"judge {config.name}",
    )
    return Judge(config, engine, prompt=PromptFile(file) if file else None)
