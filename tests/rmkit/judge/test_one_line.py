"""A judge named in one line is the judge of the same settings in a TOML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("aiohttp")

from rmkit.errors import ConfigError, ModelError, UsageError  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.types import Candidates, Completion, Message  # noqa: E402


@pytest.fixture
def folder(make_tokenizer: Callable[..., Any], chatml: str, tmp_path: Path) -> Path:
    import transformers

    tokenizer = make_tokenizer(chatml + "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=4096, initializer_range=0.4, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


def test_a_line_is_the_judge_of_a_toml(folder: Path, tmp_path: Path, home: Path) -> None:
    toml = tmp_path / "judge.toml"
    toml.write_text(
        '[judge]\nname = "lm-yes_no"\nform = "yes_no"\nmax_tokens = 2\nrubric = "Is it blue?"\n'
        '[generator]\nbackend = "local"\nmodel = "lm"\n'
    )
    line: Any = load_model(f"judge:{folder}?prompt=yes_no&max_tokens=2&rubric=Is it blue?")
    other: Any = load_model(toml)
    try:
        assert line.info == other.info
        assert line.info.kind == "generative"
        answers = tuple(Completion((Message("assistant", text),)) for text in ("yes, it is", "no"))
        batch = [Candidates((Message("user", "Is the sky blue?"),), answers)]
        assert line.requests(batch[0]) == other.requests(batch[0])
        assert "Is it blue?" in line.requests(batch[0])[0][1].prompt[-1].content
        [first, second] = line.score(batch)[0]  # a random model says nothing that could be read
        assert "raise max_tokens" in str(first.unscored)
        assert other.score(batch)[0][1].unscored == second.unscored
    finally:
        line.close()
        other.close()


@pytest.mark.parametrize(
    ("query", "error", "what"),
    [
        ("?promt=scale", UsageError, "unknown key 'promt'"),
        ("?votes=0", ConfigError, "votes and max_tokens must be at least 1"),
        ("?prompt=scale&highest=0", ConfigError, "lowest must be below highest"),
    ],
)
def test_wrong_lines_say_what_is_wrong(tmp_path: Path, query: str, error: type[Exception], what: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(error, match=what):
        load_model(f"judge:{tmp_path}{query}")


def test_a_line_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the judge's model"):
        load_model("judge:?prompt=scale")
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load_model(f"judge:{tmp_path}")
