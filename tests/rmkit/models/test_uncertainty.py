"""MC dropout and ensembles: against plain loops, one pass over the trunk, standardized, whole on disk."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rmkit.chat.encode import Chat, TruncationPolicy  # noqa: E402
from rmkit.errors import ConfigError, ModelError, UsageError  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.models.transformer import explicit  # noqa: E402
from rmkit.models.transformer.explicit import ExplicitRewardModel  # noqa: E402
from rmkit.models.transformer.reward_module import RewardModule  # noqa: E402
from rmkit.models.wrappers.dropout import ModelDropout, head_of, thinned, with_dropout  # noqa: E402
from rmkit.models.wrappers.ensemble import EnsembleModel, combined, shared_trunk  # noqa: E402
from rmkit.scoring import verify  # noqa: E402
from rmkit.training import command as train  # noqa: E402
from rmkit.training import ensemble as train_ensemble  # noqa: E402
from rmkit.types import Candidates, Completion, Message, ModelInfo, Score  # noqa: E402
from tests.exports import kind_rows, write_export  # noqa: E402
from tests.rmkit.tiny_encoder import write_tiny_encoder  # noqa: E402

Make = Callable[..., Any]


def ask(prompt: str, *texts: str) -> Candidates:
    return Candidates((Message("user", prompt),), tuple(Completion((Message("assistant", t),)) for t in texts))


BATCH = [ask("the quick fox", "yes", "no, the sky is blue", ""), ask("2 + 2", "4"), ask("step", "first", "second dog")]


@pytest.fixture
def engine(tiny_model: Make, make_tokenizer: Make, chatml: str) -> Make:
    def make(family: str = "llama", *, seed: int = 0) -> ExplicitRewardModel:
        tokenizer = make_tokenizer(chatml)
        model = tiny_model(family, seed=seed, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
        chat = Chat(tokenizer, TruncationPolicy(max_length=200, response_reserve_tokens=100))
        return ExplicitRewardModel(
            RewardModule(model), chat, ModelInfo(f"m{seed}", "explicit", "logit", True, str(seed))
        )

    return make


def test_thinned_rows_are_dropout() -> None:
    weight = torch.arange(1.0, 2001.0)
    rows = thinned(weight, rate=0.25, passes=40, seed=3)
    assert torch.equal(rows[0], weight)
    ratio = rows[1:] / weight
    assert sorted({round(x, 5) for x in ratio.flatten().tolist()}) == pytest.approx([0.0, 1 / 0.75], abs=1e-5)
    assert float((ratio == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert not torch.equal(rows[1], rows[2])
    assert torch.equal(rows, thinned(weight, rate=0.25, passes=40, seed=3))


@pytest.mark.parametrize("family", ["qwen3", "bert"])
def test_head_dropout_equals_a_loop_over_masks_and_runs_the_trunk_once(engine: Make, family: str) -> None:
    plain = engine(family)
    expected = plain.score(BATCH)
    linear = head_of(plain.module.classifier)
    states: list[Any] = []
    handle = linear.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0].float().clone()))
    plain.score(BATCH[2:])
    handle.remove()
    rows = thinned(linear.weight[0], rate=0.3, passes=6)
    bias = 0.0 if linear.bias is None else linear.bias.item()
    draws = [[float((state * row).sum()) + bias for row in rows[1:]] for state in torch.cat(states)]

    model = with_dropout(engine(family), rate=0.3, passes=6)
    forwards = []
    model.module.register_forward_hook(lambda *_: forwards.append(1))  # type: ignore[attr-defined]
    found = model.score(BATCH)
    assert len(forwards) == 1  # all items fit one batch, whatever T is
    assert model.info == plain.info  # the value is the plain score
    for row, before in zip(found, expected, strict=True):
        assert [one.unscored for one in row] == [one.unscored for one in before]
        known = [(one.value, was.value) for one, was in zip(row, before, strict=True) if not one.unscored]
        assert [a for a, _ in known] == pytest.approx([b for _, b in known], abs=1e-5)
    wanted = sorted(statistics.stdev(one) for one in draws)
    assert sorted(one.std or 0.0 for one in found[2]) == pytest.approx(wanted, rel=1e-3)
    alone = [model.score([item])[0] for item in BATCH]
    assert [s.std for row in alone for s in row if s.std] == pytest.approx(
        [s.std for row in found for s in row if s.std], rel=1e-3
    )


def test_the_spread_tends_to_the_known_variance(engine: Make) -> None:
    model = engine()
    linear = head_of(model.module.classifier)
    states: list[Any] = []
    handle = linear.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0].float().clone()))
    model.score(BATCH[1:2])
    handle.remove()
    with torch.no_grad():
        exact = math.sqrt(0.2 / 0.8 * float(((states[0][0] * linear.weight[0]) ** 2).sum()))
    [[score]] = with_dropout(model, rate=0.2, passes=4000).score(BATCH[1:2])
    assert score.std == pytest.approx(exact, rel=0.05)


def test_dropout_of_the_whole_model_is_its_own_model(engine: Make) -> None:
    plain = engine()
    expected = plain.score(BATCH)
    model = with_dropout(engine(), rate=0.2, passes=5, where="model")
    assert isinstance(model, ModelDropout)
    found, again = model.score(BATCH), model.score(BATCH)
    assert found == again or [s.value for r in found for s in r if not s.unscored] == [
        s.value for r in again for s in r if not s.unscored
    ]
    assert all((s.std or 0) > 1e-4 for row in found for s in row if not s.unscored)
    assert found[0][2].unscored == expected[0][2].unscored
    assert found[1][0].value != expected[1][0].value
    assert model.info.fingerprint != plain.info.fingerprint
    assert not model.info.pointwise
    assert not model.model.module.training


def test_dropout_that_makes_no_sense_is_refused(engine: Make) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        with_dropout(engine(), rate=1.0)
    with pytest.raises(ConfigError, match="two passes"):
        with_dropout(engine(), passes=1)
    with pytest.raises(UsageError, match="no head of one output"):
        with_dropout(load_model("length"))


def test_the_three_rules_by_hand() -> None:
    found = combined([1.0, 2.0, 6.0], uncertainty_weight=0.5)
    assert found == pytest.approx({"mean": 3.0, "wco": 1.0, "uwo": 3.0 - 0.5 * 14 / 3})


@pytest.fixture
def members(home: Path, tmp_path: Path) -> tuple[list[str], str]:
    """Three frozen models on one encoder, and the data they were trained on."""
    data = str(write_export(tmp_path / "data", kind_rows(200, flipped=0.2)))
    encoder = write_tiny_encoder(tmp_path / "encoder")
    values = {"encoder": str(encoder), "max_tokens": 32, "dtype": "fp32", "linear_lr": 0.01, "epochs": 4}
    names = []
    for seed, hidden in ((0, (0,)), (1, (8,)), (2, (8,))):
        folder = tmp_path / f"seed{seed}"
        train.train("frozen", data, output=folder, seed=seed, values={**values, "hidden": hidden})
        names.append(str(folder))
    return names, data


def test_an_ensemble_standardizes_combines_and_survives_on_disk(
    members: tuple[list[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, data = members
    target = tmp_path / "three"
    argv = [*names, "--data", data, "--set", "rule=uwo", "--set", "uncertainty_weight=0.25", "-o", str(target)]
    assert train_ensemble.main(argv) == 0
    model = load_model(target)
    assert isinstance(model, EnsembleModel)
    assert (model.info.kind, model.info.scale, model.info.pointwise) == ("ensemble", "logit", True)
    card = json.loads((target / "reward_model.json").read_text())
    batch = [ask("tell me about chess", "gladly thank you chess", "stupid boring chess", "")]
    raw = np.array([[s.value for s in load_model(name).score(batch)[0][:2]] for name in names])
    config, temperature = card["config"], card["temperature"]
    z = (raw - np.array(config["means"])[:, None]) / np.array(config["scales"])[:, None]
    [scores] = model.score(batch)
    for at in range(2):
        mean = z[:, at].mean()
        uwo = mean - 0.25 * ((z[:, at] - mean) ** 2).mean()
        expected = {"mean": mean, "wco": z[:, at].min(), "uwo": uwo}
        assert scores[at].aspects == pytest.approx({k: v / temperature for k, v in expected.items()}, rel=1e-4)
        assert scores[at].value == scores[at].aspects["uwo"]
        assert scores[at].std == pytest.approx(z[:, at].std(ddof=1) / temperature, rel=1e-3)
    assert "no assistant text" in str(scores[2].unscored)
    assert verify.main([str(target)]) == 0

    encoder: Any = type(model.members[0].encoder)  # type: ignore[attr-defined]
    encoded, encode = [], encoder.features

    def counted(self: Any, texts: Any, **options: Any) -> Any:
        encoded.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(encoder, "features", counted)
    model.score(batch)
    assert encoded == [4]  # two prompts and two responses, once for all three members


def test_a_tampered_member_is_refused(members: tuple[list[str], str], tmp_path: Path) -> None:
    names, data = members
    target = tmp_path / "two"
    train_ensemble.train(names[:2], data, output=target)
    weights = target / "members" / "1" / "weights.npz"
    content = bytearray(weights.read_bytes())
    weights.unlink()  # linked files: changing it in place would change the member itself
    content[-5] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ModelError, match="was changed"):
        load_model(target)
    assert verify.main([str(target)]) == 1
    load_model(names[1])


def test_members_that_cannot_be_averaged_are_refused(members: tuple[list[str], str], tmp_path: Path) -> None:
    names, data = members
    with pytest.raises(UsageError, match="two models or more"):
        train_ensemble.train(names[:1], data, output=tmp_path / "x")
    with pytest.raises(UsageError, match="the same model twice"):
        train_ensemble.train([names[0], names[0]], data, output=tmp_path / "x")
    with pytest.raises(UsageError, match="length rule"):
        train_ensemble.train([names[0], "length"], data, output=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_explicit_members_with_one_trunk_run_it_once(engine: Make, tmp_path: Path) -> None:
    first, second = engine(), engine()
    with torch.no_grad():
        second.module.classifier.score.weight.copy_(torch.randn(1, 32, generator=torch.Generator().manual_seed(5)))
    expected = [first.score(BATCH), second.score(BATCH)]
    calls: list[int] = []
    for one in (first, second):
        one.module.register_forward_hook(lambda *_: calls.append(1))
    shared = shared_trunk([first, second])
    assert shared is not None
    found = shared(BATCH)
    assert len(calls) == 1
    for ours, theirs in zip(found, expected, strict=True):
        flat = [(a.value, b.value) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)
                if not b.unscored]  # fmt: skip
        assert [a for a, _ in flat] == pytest.approx([b for _, b in flat], abs=1e-5)
    assert shared_trunk([engine(seed=1), engine(seed=2)]) is None


def test_bf16_golden_scores_are_kept_and_replayed(engine: Make, tmp_path: Path) -> None:
    model = engine()
    folder = tmp_path / "model"
    folder.mkdir()
    explicit.save(folder, model=model.module.classifier, chat=model.chat, facts={"name": "m"})
    rows = [json.loads(line) for line in (folder / "golden.jsonl").read_text().splitlines()]
    assert all(math.isfinite(row["score_bf16"]) for row in rows)
    assert any(row["score_bf16"] != row["score"] for row in rows)
    rough = load_model(folder, precision="bf16", device="cpu")
    [[score]] = rough.golden_scores([ask(rows[0]["prompt"], rows[0]["response"])], precision="bf16")  # type: ignore[attr-defined]
    assert score.value == pytest.approx(rows[0]["score_bf16"], abs=1e-3)
    result = verify.verify(folder)
    assert [one.check for one in result.checks][-2:] == ["golden scores fp32", "golden scores bf16"]
    spread = np.std([row["score_bf16"] for row in rows])
    rows[2]["score_bf16"] += 0.2 * spread
    (folder / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    load_model(folder)  # fp32 is what it was
    with pytest.raises(ModelError, match=r"golden score differs .*bf16"):
        load_model(folder, precision="bf16")
    assert not verify.verify(folder).same


def test_a_score_that_is_not_finite_is_no_score(engine: Make) -> None:
    model = with_dropout(engine(), passes=3)
    with torch.no_grad():
        model.module.classifier.score.weight[2].fill_(math.inf)  # type: ignore[attr-defined]
    assert all(isinstance(one, Score) and one.unscored for row in model.score(BATCH) for one in row)
