"""Converters of feedback: roles of a discussion, reflections, reactions, documents and requests, worked by hand."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_pipelines.converters import Derived, Example, NotConvertibleError
from data_pipelines.converters.feedback import discussions, policy_clauses, reactions, reflections, requests
from data_pipelines.converters.feedback.discussions import RoleRewards, role_rewards
from data_pipelines.converters.runner import convert
from data_pipelines.ingest.command import ingest
from rmkit.errors import ConfigError
from rmkit.ids import assistant_message, messages_json
from rmkit.losses.binary_feedback import reaction
from rmkit.signal import hacking
from rmkit.signal.hacking import HackingAlarm
from rmkit.types import Message
from warehouse.lineage.why import why
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve


def row(*texts: str, prompt: str = "How?", system: str = "", **more: Any) -> Example:
    names = ("ranks", "p", "step_ends", "reference", "meta", "margin", "generators", "step_labels", "scores")
    turns = [Message("system", system)] if system else []
    own = {"prompt": messages_json((*turns, Message("user", prompt))), "kind": "single", "n_votes": 1, "unit": "u"}
    own |= {"responses": list(map(assistant_message, texts)), "votes": []}
    return dict.fromkeys(names) | own | more


def rated(**aspects: list[float | None]) -> list[dict[str, Any]]:
    return [
        {"response": at, "aspect": name, "value": value}
        for name, values in aspects.items()
        for at, value in enumerate(values)
        if value is not None
    ]


def vote(score: float | None = None, rationale: str | None = None, edit: str | None = None) -> dict[str, Any]:
    scores = None if score is None else [{"response": 0, "aspect": "rating", "value": score}]
    return {"scores": scores, "rationale": rationale, "edit": None if edit is None else assistant_message(edit)}


def words(derived: Derived) -> list[str]:
    return [json.loads(text)[-1]["content"] for text in derived.responses]


@pytest.mark.parametrize(
    ("score", "expected"),
    [(1, (0, 1, 0)), (2, (0.5, 0.5, 0)), (3, (1, 0, 0)), (None, (0, 0, -1)), (4, (0, 0, -1)), (math.nan, (0, 0, -1))],
)
def test_rewards_of_the_three_roles(score: float | None, expected: tuple[float, float, float]) -> None:
    assert role_rewards(score) == RoleRewards(*expected)


def test_a_discussion_gives_each_role_its_own_row() -> None:
    judged = row("It is 4.", votes=[vote(3, "Right."), vote(1.5, "Says no unit."), vote(None, "Hm."), vote(2)])
    units = list(discussions.convert(judged, discussions.Config()))
    assert [(one.meta["role"], *words(one), one.scores[0][2]) for one in units] == [
        ("solver", "It is 4.", pytest.approx((1 + 0.25 + 0) / 3)),
        ("evaluator", "Right.", 0.0),
        ("scorer", "3", 0.0),
        ("evaluator", "Says no unit.", 0.75),
        ("scorer", "1.5", 0.0),
        ("evaluator", "Hm.", 0.0),  # nobody could read the score
    ]
    prompts = [json.loads(one.prompt or "[]")[0]["content"] for one in units[1:3]]
    assert prompts[0].startswith("How?\n\nSolution:\nIt is 4.\n\nCriticize")
    assert "Critique:\nRight." in prompts[1]
    with pytest.raises(NotConvertibleError, match="no judgment with a reason"):
        list(discussions.convert(row("x", votes=[vote(2)]), discussions.Config()))


def test_the_right_retry_beats_the_wrong_first_answer() -> None:
    asked = row("down", "flat", "up", "up too", scores=rated(correct=[0, 0, 1, 1], round=[0, 1, 2, 3]))
    (pair,) = reflections.convert(asked, reflections.Config())
    assert (words(pair), pair.p, pair.meta) == (["up", "down"], [1.0, 0.0], {"round": 2})
    for reason, other in {
        "no retry was right": row("down", "flat", scores=rated(correct=[0, 0], round=[0, 1])),
        "the first answer was right": row("up", "flat", scores=rated(correct=[1, 0], round=[0, 1])),
        "not one first answer": row("a", "b", scores=rated(correct=[0, 1], round=[1, 2])),
        "quotes what was verified": asked
        | {
            "responses": list(map(assistant_message, ["down", "flat", "UP  by 3%", "x"])),
            "meta": json.dumps({"evidence": "up by 3%"}),
        },
    }.items():
        with pytest.raises(NotConvertibleError, match=reason):
            list(reflections.convert(other, reflections.Config()))
    with pytest.raises(NotConvertibleError, match="no retry was right"):
        list(reflections.convert(asked, reflections.Config(rounds=1)))


def test_all_positive_reactions_stay_and_the_share_of_negative_ones() -> None:
    config = reactions.Config(negatives_kept=0.26)
    n_kept = {0.0: 0, 1.0: 0}
    for value in n_kept:
        for number in range(2000):
            try:
                (unit,) = reactions.convert(row("x", unit=f"u{number}", scores=rated(thumb=[value])), config)
            except NotConvertibleError:
                continue
            assert unit.scores == [(0, "thumb", value)]
            n_kept[value] += 1
    assert n_kept[1.0] == 2000
    assert n_kept[0.0] == pytest.approx(520, abs=4 * math.sqrt(2000 * 0.26 * 0.74))
    with pytest.raises(ConfigError, match="share"):
        reactions.Config(negatives_kept=0)


def test_the_prior_correction_has_the_published_digits() -> None:
    """True logit -4 + z, z normal, by quadrature: base rate .0281; .26 leaves 9 negatives to a positive."""
    nodes, weight = np.polynomial.hermite_e.hermegauss(60)
    weight = weight / weight.sum()
    p = 1 / (1 + np.exp(4 - nodes))
    base = float(weight @ p)
    share = 9 * base / (1 - base)
    assert (round(base, 4), round(share, 2)) == (0.0281, 0.26)
    raw = p / (p + share * (1 - p))  # what a model of the sample learns
    sampled = weight * (p + share * (1 - p)) / (base + share * (1 - base))
    assert (round(float(weight @ raw), 3), round(float(sampled @ raw), 3)) == (0.093, 0.1)
    # the corrected loss is at its minimum where the logit is the population's
    logit = torch.tensor([-4.0, 1.0], dtype=torch.float64, requires_grad=True)
    z, mass = torch.tensor(nodes), {1.0: torch.tensor(weight * p), 0.0: torch.tensor(weight * share * (1 - p))}
    loss = sum(
        (part * reaction(logit[0] + logit[1] * z, liked_B=torch.full_like(z, liked), negatives_kept=share)).sum()
        for liked, part in mass.items()
    )
    (gradient,) = torch.autograd.grad(loss, logit)
    assert gradient.abs().max().item() < 1e-9
    corrected = torch.sigmoid(logit.detach()[0] + z).numpy()
    assert round(float(weight @ corrected), 4) == 0.0281


@pytest.mark.parametrize(("love", "rings"), [(0.0, False), (4.0, True)])
def test_a_rising_weight_of_love_trips_the_canary(love: float, rings: bool) -> None:
    """A policy over three endings learns from helpfulness and love; "Bye!" is loved and does not help."""
    endings = ["That is how.", "Anything else?", "Glad to help. Bye!"]
    helpful, loved = np.array([1.0, 0.9, 0.2]), np.array([0.0, 0.2, 1.0])
    logit, rng, alarm = np.array([1.0, 0.5, -2.0]), np.random.default_rng(5), HackingAlarm()
    for step in range(60):
        policy = np.exp(logit) / np.exp(logit).sum()
        texts = rng.choice(3, size=200, p=policy)
        reward = helpful + love * min(1, step / 20) * loved
        measures = {
            hacking.PROXY: float(reward[texts].mean()),
            hacking.CANARY: float(np.mean([hacking.has_canary(endings[at], ["bye!"]) for at in texts])),
        }
        alarm.step(step, measures)
        logit = logit + 1.5 * policy * (reward - policy @ reward)
    assert bool(alarm.alarm) is rings
    if rings:
        assert {sign.name for sign in alarm.alarm.signs} == {hacking.CANARY}  # type: ignore[union-attr]


def test_a_policy_document_becomes_the_rubric() -> None:
    document = (
        "You serve a shop.\n1. Refund within 30 days,\n   with the receipt.\n2) Never name customers.\n\n- Be brief."
    )
    given = row("No.", prompt="Refund me.", system=document, scores=rated(ok=[1]))
    (unit,) = policy_clauses.convert(given, policy_clauses.Config())
    assert [one["criterion"] for one in json.loads(unit.rubric or "")] == [
        "Refund within 30 days, with the receipt.",
        "Never name customers.",
        "Be brief.",
    ]
    assert [one["role"] for one in json.loads(unit.prompt or "")] == ["user"]
    assert (list(unit.scores), list(unit.origins)) == ([(0, "ok", 1)], [0])
    (kept,) = policy_clauses.convert(given, policy_clauses.Config(keep_document=True))
    assert kept.prompt is None
    with pytest.raises(NotConvertibleError, match="no policy document"):
        list(policy_clauses.convert(row("x", system="Be kind."), policy_clauses.Config()))


def test_requests_say_what_happened() -> None:
    drafted = row("Dear Sir", votes=[vote(edit="Hi Bob"), vote(edit="Dear Sir"), vote(edit="Hi Bob")])
    (unit,) = requests.convert(drafted, requests.Config())
    (message,) = json.loads(unit.prompt or "[]")
    assert "How?\n\nDraft:\nDear Sir\n\nWhat the user made of it:\nHi Bob\n\n" in message["content"]
    assert (unit.meta, list(unit.responses)) == ({"ask": "preference", "context": "How?"}, [])
    mixed = row("4", "5", scores=rated(correct=[1, 0]))
    (lesson,) = requests.convert(mixed, requests.Config(ask="lesson"))
    assert "Right answer:\n4\n\nWrong answer:\n5" in json.loads(lesson.prompt or "[]")[0]["content"]
    failed = row("4", "5", scores=rated(correct=[0, 0]))
    (task,) = requests.convert(failed, requests.Config(ask="task"))
    assert "Every attempt at this task failed" in json.loads(task.prompt or "[]")[0]["content"]
    for ask, other, reason in (("lesson", failed, "alike"), ("task", mixed, "came out right")):
        with pytest.raises(NotConvertibleError, match=reason):
            list(requests.convert(other, requests.Config(ask=ask)))  # type: ignore[arg-type]
    with pytest.raises(NotConvertibleError, match="no correction of so many words"):
        list(requests.convert(drafted, requests.Config(least=3)))


@pytest.mark.slow
def test_real_answers_with_reasons(home: Path, shared_data: Path, tmp_path: Path) -> None:
    """40 answers of FeedbackQA: roles counted anew from the file, and the way back of a critique."""
    with gzip.open(shared_data / "feedback_feedbackqa.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [next(file) for _ in range(40)]
    (tmp_path / "fqa.jsonl").write_text("".join(lines))
    ingest(tmp_path / "fqa.jsonl")
    convert("discussions", "fqa", "roles", discussions.Config(high=4))
    with open_warehouse(read_only=True) as connection:
        units = checkout(connection, resolve(connection, "roles")).to_pylist()
        by_role: dict[str, list[dict[str, Any]]] = {}
        for one in units:
            by_role.setdefault(one["scores"][0]["aspect"], []).append(one)
        critique = by_role["evaluator"][0]
        facts = why(connection, critique["unit"])
    labels = [label for line in lines for label in json.loads(line)["labels"]]
    reasons = [label for label in labels if label.get("explanation")]
    assert len(by_role["evaluator"]) <= len(reasons)
    text = json.loads(critique["responses"][0])[0]["content"]
    (label,) = {one["score"] for one in reasons if one["explanation"].strip() == text.strip()}
    assert critique["scores"][0]["value"] == pytest.approx(1 - (label - 1) / 3)
    assert facts["units"][-1]["rewritten_from"] == facts["units"][0]["unit"]
    assert all(one["scores"][0]["value"] == 0 for one in by_role["scorer"])


def test_the_page_on_converters_runs() -> None:
    page = Path(__file__).parents[3] / "docs" / "converters.md"
    blocks = page.read_text(encoding="utf-8").split("```python\n")[1:]
    assert len(blocks) == 4
    for block in blocks:
        exec(block.split("```")[0], {})


@pytest.mark.slow
def test_real_thumbs(home: Path, shared_data: Path) -> None:
    """Counted anew from the file: all loved replies stay, about the share of the others."""
    path = shared_data / "feedback_convai.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        thumbs = [message.get("thumb") for line in file for message in json.loads(line)["messages"]]
    ingest(path, dataset="talks")
    convert("reactions", "talks", "loved", reactions.Config(negatives_kept=0.5))
    with open_warehouse(read_only=True) as connection:
        values = [row["scores"][0]["value"] for row in checkout(connection, resolve(connection, "loved")).to_pylist()]
    ups, downs = thumbs.count("up"), thumbs.count("down")
    assert 0.9 * ups < sum(value > 0 for value in values) <= ups  # thumbs without a user turn have no prompt
    assert sum(value == 0 for value in values) == pytest.approx(0.5 * downs, abs=4 * math.sqrt(downs / 4))


@pytest.mark.slow
def test_corrections_become_a_memory_of_preferences(
    home: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real corrections, a scripted model that infers, and what is remembered for each context."""
    from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
    from rmkit.cli import main as cli

    with gzip.open(shared_data / "edits_ilf_code.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [next(file) for _ in range(6)]
    (tmp_path / "ilf.jsonl").write_text("".join(lines))

    def infer(asked: dict[str, Any]) -> Reply:
        return Reply(text=f"Prefers {len(asked['messages'][-1]['content'])}.")

    with ScriptedEndpoint(infer) as endpoint:
        (tmp_path / "answer.toml").write_text(
            '[recipe]\nname = "answer"\n[[step]]\nuse = "generate"\nsamples = 1\ntemperature = 0.0\n'
            f'[step.generator]\nmodel = "m"\nbase_url = "{endpoint.base_url}"\n'
        )
        memory = str(tmp_path / "preferences.jsonl")
        for command in (
            ["ingest", str(tmp_path / "ilf.jsonl")],
            ["convert", "requests", "--data", "ilf", "--out", "asked"],
            ["run", str(tmp_path / "answer.toml"), "--data", "asked", "--out", "answered"],
            ["memory", "add", memory, "answered"],
        ):
            assert cli.main(command) == 0
    context = json.loads(lines[3])["prompt"][-1]["content"]
    entries = [json.loads(line) for line in Path(memory).read_text().splitlines()]
    assert {one["context"] for one in entries} == {json.loads(line)["prompt"][-1]["content"] for line in lines}
    capsys.readouterr()
    assert cli.main(["memory", "search", memory, context, "-k", "1", "--json"]) == 0
    (nearest,) = json.loads(capsys.readouterr().out)["entries"]
    assert nearest["similarity"] == 1
    assert nearest["text"] == next(one["text"] for one in entries if one["context"] == context)
