"""Sampling from a transformers model in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rmkit.errors import ModelError  # noqa: E402
from rmkit.generate import Engine, Limits, Request  # noqa: E402
from rmkit.generate.local import LocalGenerator, load_local  # noqa: E402
from rmkit.types import Message  # noqa: E402

GENERATION_TEMPLATE = "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer: Callable[..., Any], chatml: str) -> Any:
    return make_tokenizer(chatml + GENERATION_TEMPLATE)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        initializer_range=0.4,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture
def engine(model: Any, tokenizer: Any) -> Iterator[Engine]:
    with Engine(LocalGenerator(model, tokenizer, name="tiny", batch_size=8), limits=Limits(concurrency=32)) as made:
        yield made


def ask(text: str, **options: Any) -> Request:
    return Request(prompt=(Message("user", text),), **({"max_tokens": 6} | options))


def greedy(model: Any, tokenizer: Any, request: Request) -> str:
    """The second implementation: one row, no padding, transformers' own greedy decoding."""
    messages = [{"role": m.role, "content": m.content} for m in request.prompt]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.max_tokens, do_sample=False)
    text: str = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    return text


def test_greedy_replies_in_a_padded_batch_are_those_of_each_alone(engine: Engine, model: Any, tokenizer: Any) -> None:
    requests = [ask("sky " * n) for n in (1, 7, 3, 12, 2)]
    replies = [sample.text for sample in engine.samples(requests)]
    assert replies == [greedy(model, tokenizer, request) for request in requests]
    assert len(set(replies)) > 1


def test_a_seed_gives_the_same_reply_in_any_company(engine: Engine) -> None:
    wanted = [ask("the quick brown fox", temperature=1.0, seed=seed) for seed in range(6)]
    together = [sample.text for sample in engine.samples(wanted)]
    company = [ask("no " * 9, temperature=0.7, seed=3, max_tokens=9)]
    apart = [engine.samples([request, *company])[0].text for request in reversed(wanted)][::-1]
    assert together == apart
    assert len(set(together)) == 6


def test_samples_follow_the_models_distribution(engine: Engine, model: Any, tokenizer: Any) -> None:
    request = ask("is the sky blue", temperature=0.7, max_tokens=1)
    messages = [{"role": "user", "content": "is the sky blue"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    with torch.inference_mode():
        p = torch.softmax(model(ids).logits[0, -1].float() / 0.7, dim=-1)
    n = 400
    seen = Counter(sample.text for sample in engine.samples(request.samples(n)))
    by_text: Counter[str] = Counter()  # half characters of several tokens look alike
    for token, probability in enumerate(p.tolist()):
        by_text[tokenizer.decode([token], skip_special_tokens=True)] += probability
    for text, expected in by_text.most_common(5):
        spread = (expected * (1 - expected) / n) ** 0.5
        assert seen[text] / n == pytest.approx(expected, abs=4 * spread)


def test_a_nucleus_holds_only_the_likeliest_tokens(engine: Engine) -> None:
    request = ask("is the sky blue", temperature=1.0, top_p=1e-6, max_tokens=4)
    assert {sample.text for sample in engine.samples(request.samples(5))} == {
        engine.samples([ask("is the sky blue", max_tokens=4)])[0].text
    }


def test_log_probabilities_are_those_of_a_forward_pass(engine: Engine, model: Any, tokenizer: Any) -> None:
    [sample] = engine.samples([ask("say yes", top_logprobs=3, max_tokens=4)])
    messages = [{"role": "user", "content": "say yes"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].float(), dim=-1)
    top = logprobs.topk(3)
    assert [p for _, p in sample.logprobs[0].top] == pytest.approx(top.values.tolist(), abs=1e-4)
    token, logprob = sample.logprobs[0].top[0]
    assert token == sample.logprobs[0].token
    assert logprob == pytest.approx(sample.logprobs[0].logprob)
    assert len(sample.logprobs) == 4


def test_tokens_are_counted_and_the_end_is_told(engine: Engine, tokenizer: Any) -> None:
    [whole] = engine.samples([ask("sky")])
    assert (whole.finish, whole.completion_tokens) == ("length", 6)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "sky"}], add_generation_prompt=True)["input_ids"]
    assert whole.prompt_tokens == len(ids)
    stop = whole.text[2:4]
    [cut] = engine.samples([ask("sky", stop=(stop,))])
    assert (cut.text, cut.finish) == (whole.text[: whole.text.find(stop)], "stop")


def test_a_row_ends_where_its_stop_is_written_and_the_others_go_on(
    model: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[None] = []
    forward = model.forward

    def counted(*args: Any, **options: Any) -> Any:
        passes.append(None)
        return forward(*args, **options)

    monkeypatch.setattr(model, "forward", counted)
    [whole] = engine.samples([ask("sky", max_tokens=20)])
    n_whole = len(passes)
    passes.clear()
    [alone] = engine.samples([ask("sky", max_tokens=20, stop=(whole.text[3],))])
    assert 1 < len(passes) < n_whole
    assert (alone.text, alone.completion_tokens) == (whole.text[: whole.text.find(whole.text[3])], len(passes))
    cut, other = engine.samples([ask("sky", max_tokens=20, stop=(whole.text[3],)), ask("sea", max_tokens=20)])
    [sea] = engine.samples([ask("sea", max_tokens=20)])
    assert (cut.text, cut.completion_tokens) == (alone.text, alone.completion_tokens)
    assert (other.text, other.completion_tokens) == (sea.text, sea.completion_tokens)


def test_a_prompt_that_does_not_fit_is_refused_and_the_others_are_answered(engine: Engine) -> None:
    long, short = engine.samples([ask("word " * 200), ask("sky")])
    assert long.error is not None
    assert "exceed the model's 96" in long.error
    assert short.error is None
    assert engine.tally.failed == 1


def test_a_model_without_chat_template_is_refused(model: Any, make_tokenizer: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        LocalGenerator(model, make_tokenizer(None), name="bare")


def test_a_saved_model_is_named_by_its_weights(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        model.save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
    name = load_local(tmp_path / "one").name
    assert name.split(":")[2] == load_local(tmp_path / "two").name.split(":")[2]
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
        model.save_pretrained(tmp_path / "two")
        model.lm_head.weight[0, 0] -= 1
    assert name.split(":")[2] != load_local(tmp_path / "two").name.split(":")[2]
    with pytest.raises(ModelError, match="no tokenizer that can be loaded"):
        load_local(tmp_path / "nowhere")


def test_a_reply_begun_is_gone_on_with(engine: Engine, model: Any, tokenizer: Any) -> None:
    """The second implementation: the tokens of prompt and beginning, one row, transformers' own greedy decoding."""
    whole = engine.samples([ask("one two three", max_tokens=8)])[0].text
    begun = Request(prompt=(Message("user", "one two three"), Message("assistant", whole[:9])), max_tokens=6)
    messages = [{"role": m.role, "content": m.content} for m in begun.prompt]
    ids = tokenizer.apply_chat_template(messages, continue_final_message=True, return_tensors="pt", return_dict=False)
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    want = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert engine.samples([begun])[0].text == want


def test_samples_of_one_prompt_read_it_once_and_stay_the_same(model: Any, tokenizer: Any) -> None:
    """Prompts of several lengths, some of them repeated: as each alone."""
    asked = [ask("one two three", temperature=1.0, seed=seed) for seed in range(3)]
    asked += [ask("four", temperature=1.0, seed=seed) for seed in range(2)] + [ask("five six")]
    generator = LocalGenerator(model, tokenizer, name="tiny")
    alone = [one for request in asked for one in generator._answers([request])]
    widths: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    together = generator._answers(asked)
    hook.remove()
    assert together == alone
    assert widths[0][0] == 3  # the distinct prompts
    assert all(shape == (6, 1) for shape in widths[1:])
