"""A real server, `transformers serve` on loopback with a tiny random model: it honours no log-probs and no schema."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rmkit.generate import Engine, Limits, Request
from rmkit.generate.endpoint import EndpointGenerator
from rmkit.judge import Judge, JudgeConfig
from rmkit.ledger import open_ledger
from rmkit.types import Candidates, Completion, Message

for needed in ("aiohttp", "fastapi", "openai"):
    pytest.importorskip(needed)
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.slow  # the server takes ten seconds to start

GENERATION = "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, make_tokenizer: Callable[..., Any], chatml: str) -> Path:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    tokenizer = make_tokenizer(chatml + GENERATION)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base_url(model_folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [str(program), "serve", str(model_folder), "--port", str(port), "--host", "127.0.0.1", "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = model_folder.parent / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        for _ in range(600):
            if server.poll() is not None:
                pytest.fail(f"transformers serve ended: {log.read_text()[-800:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_it_answers_and_what_it_does_not_honour_is_noticed(base_url: str, model_folder: Path, tmp_path: Path) -> None:
    generator = EndpointGenerator(base_url=base_url, model=str(model_folder))
    with (
        open_ledger(tmp_path / "ledger.sqlite") as ledger,
        Engine(generator, ledger=ledger, limits=Limits(concurrency=2)) as engine,
    ):

        async def honoured(field: str) -> bool:
            return await generator.takes(field)

        assert list(engine.each(honoured, ["logprobs", "schema"])) == [False, False]
        asked = Request(prompt=(Message("user", "the quick brown fox"),), max_tokens=8, top_logprobs=5)
        [sample] = engine.samples([asked])
        assert sample.error is None
        assert sample.logprobs == ()
        assert sample.completion_tokens == 8
        assert sample.finish == "length"
        assert sample.prompt_tokens > 5
        assert engine.samples([asked])[0].cached


def test_a_judge_falls_back_to_parsing_and_admits_what_it_could_not_read(base_url: str, model_folder: Path) -> None:
    generator = EndpointGenerator(base_url=base_url, model=str(model_folder))
    with Engine(generator, limits=Limits(concurrency=2)) as engine:
        judge = Judge(JudgeConfig(name="tiny", max_tokens=8), engine)
        item = Candidates(
            (Message("user", "hi"),), tuple(Completion((Message("assistant", text),)) for text in ("hello", "go away"))
        )
        [answer] = judge.compare([item])
    assert answer.unscored  # a random model gives no verdict: neither a win nor a tie
    assert judge.tally.report()["parse_rate"] == 0.0
    assert judge.tally.report()["label_mass"] is None
