"""Published totals come out of published parts, through the readers of stored results.

RewardBench: tables 9 to 14 of the paper (Lambert et al. 2024, arXiv 2403.13787 v2). A subset's percentage and size say
how many pairs were right (a judge's ties are halves), so the stored file can be written again and the section and the
overall score must be those printed. JudgeBench: tables 1 to 3 of the paper (Tan et al. 2024, arXiv 2410.12784).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.scoring import credit_table
from evaluation.scoring.measures import Measured, measure_all
from evaluation.suites.stored_scores import load_stored
from evaluation.suites.suite import load_suite

SECTIONS = ("Chat", "Chat Hard", "Safety (paper's tables)", "Reasoning", "Prior Sets")
SUBSETS = (
    "alpacaeval-easy alpacaeval-length alpacaeval-hard mt-bench-easy mt-bench-med",
    "mt-bench-hard llmbar-natural llmbar-adver-neighbor llmbar-adver-GPTInst llmbar-adver-GPTOut llmbar-adver-manual",
    "refusals-dangerous refusals-offensive xstest-should-refuse xstest-should-respond donotanswer",
    "math-prm hep-cpp hep-go hep-java hep-js hep-python hep-rust",
    "anthropic_helpful anthropic_hhh shp summarize",
)

# Model: overall; then a line a section: its score, its subsets in the order above.
REWARDBENCH = {
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": """89.0
        96.9  97.0 96.8 94.7 100.0 100.0
        76.8  86.5 93.0 67.9 77.2 66.0 69.6
        92.2  93.0 97.0 100.0 87.2 79.4
        97.3  98.7 95.1 97.0 98.2 97.6 96.3 92.1
        74.3  69.7 87.8 74.7 65.0""",
    "RLHFlow/pair-preference-model-LLaMA3-8B": """85.7
        98.3  98.0 97.9 97.9 100.0 100.0
        65.8  75.7 89.0 53.0 62.0 68.1 50.0
        89.7  93.0 97.0 96.1 96.4 62.5
        94.7  94.9 92.7 95.7 97.0 95.1 97.0 90.2
        74.6  71.2 89.6 77.9 59.6""",
    "sfairXC/FsfairX-LLaMA3-RM-v0.1": """83.6
        99.4  100.0 98.9 98.9 100.0 100.0
        65.1  78.4 91.0 52.2 57.6 63.8 52.2
        87.8  89.0 96.0 97.4 89.2 61.8
        86.4  77.9 92.7 95.7 97.0 97.6 95.7 91.5
        74.9  71.7 86.0 79.7 62.3""",
    "openbmb/Eurus-RM-7b": """81.6
        98.0  97.0 97.9 100.0 96.4 97.5
        65.6  78.4 93.0 53.0 55.4 63.8 54.3
        81.2  70.0 72.0 93.5 94.8 58.1
        86.3  79.9 92.7 94.5 93.3 93.9 93.3 89.0
        71.7  66.7 88.2 64.7 67.2""",
    "Nexusflow/Starling-RM-34B": """81.4
        96.9  99.0 92.6 100.0 96.4 95.0
        57.2  91.9 91.0 31.3 39.1 76.6 47.8
        88.2  84.0 97.0 97.4 93.6 61.8
        88.5  85.2 89.6 92.7 94.5 95.1 91.5 86.6
        71.4  66.4 87.3 67.1 64.6""",
    "openbmb/UltraRM-13b": """68.2
        96.4  97.0 90.5 98.9 100.0 100.0
        55.5  75.7 82.0 42.5 43.5 51.1 47.8
        56.0  30.0 28.0 64.9 94.4 36.0
        62.4  45.4 78.7 79.3 80.5 78.0 78.7 81.7
        72.9  66.9 79.6 75.8 69.4""",
    "mightbe/Better-PairRM": """67.6
        95.5  99.0 86.3 100.0 92.9 100.0
        39.3  70.3 71.0 27.6 14.1 42.6 26.1
        83.2  73.0 94.0 96.8 87.6 52.9
        49.8  29.5 64.6 72.0 69.5 72.0 71.3 71.3
        72.4  68.5 83.7 64.2 73.2""",
    "PKU-Alignment/beaver-7b-v1.0-cost": """59.8
        61.7  43.0 67.4 74.7 57.1 67.5
        42.3  48.6 48.0 35.8 41.3 59.6 28.3
        81.8  99.0 100.0 99.4 35.2 76.5
        54.8  46.5 67.1 61.0 67.7 56.7 64.6 61.6
        57.0  54.6 72.9 50.1 50.5""",
    "google/gemini-1.5-pro-0514": """88.1
        92.3  95.0 84.2 93.7 98.2 97.5
        80.6  81.1 94.0 75.4 79.3 70.2 79.3
        87.5  85.0 91.0 93.8 96.8 64.7
        92.0  88.5 94.8 96.3 95.4 95.1 97.6 93.3""",
}


def totals(suite: str, path: Path) -> dict[str, Measured]:
    made = load_suite(suite)
    loaded, answers, _ = load_stored(made, path)
    return measure_all(made, credit_table(made, loaded.items, answers), resamples=0)


def stored_summary(path: Path, table: str) -> tuple[float, list[float]]:
    """Writes accuracies by subset as in reward-bench's `eval-set/`; the printed overall and section scores."""
    overall, *lines = table.split("\n")
    sizes = {subset.name: subset.items or 0 for subset in load_suite("rewardbench").subsets}
    accuracies: dict[str, Any] = {"model": "m", "model_type": "Seq. Classifier", "chat_template": "tokenizer"}
    sections = []
    for names, line in zip(SUBSETS, lines, strict=False):
        section, *percents = map(float, line.split())
        sections.append(section)
        for name, percent in zip(names.split(), percents, strict=True):
            halves = round(percent / 100 * 2 * sizes[name])
            assert round(100 * halves / (2 * sizes[name]), 1) == pytest.approx(percent, abs=0.051)
            accuracies[name] = halves / 2 / sizes[name]
    path.write_text(json.dumps(accuracies))
    return float(overall), sections


@pytest.mark.parametrize(
    "model", [name if at < 1 else pytest.param(name, marks=pytest.mark.slow) for at, name in enumerate(REWARDBENCH)]
)
def test_rewardbench_tables(tmp_path: Path, model: str) -> None:
    overall, sections = stored_summary(tmp_path / "m.json", REWARDBENCH[model])
    made = totals("rewardbench", tmp_path / "m.json")
    for name, percent in zip(SECTIONS, sections, strict=False):
        assert made[name].percent == pytest.approx(percent, abs=0.0501), name  # one decimal is printed
    assert made["overall (paper's tables)"].percent == pytest.approx(overall, abs=0.0501)
    if model.startswith("google"):  # no prior sets: left out of the mean
        assert len(made["overall (paper's tables)"].masked) == 4


def test_rewardbench_leaderboard_after_the_counts_were_put_right(tmp_path: Path) -> None:
    """The later leaderboard has ArmoRM at 90.4: the mean of four sections, XSTest by its true counts."""
    stored_summary(tmp_path / "m.json", REWARDBENCH["RLHFlow/ArmoRM-Llama3-8B-v0.1"])
    made = totals("rewardbench", tmp_path / "m.json")
    assert round(made["overall (leaderboard: four sections)"].percent, 1) == 90.4
    assert made["Safety"].numerator / made["Safety"].denominator == pytest.approx((93 + 97 + 154 + 218 + 108) / 740)


JUDGEBENCH = {  # knowledge, reasoning, math, coding, overall
    "Skywork-Reward-Gemma-2-27B": (59.74, 66.33, 83.93, 50.00, 64.29),
    "Skywork-Reward-Llama-3.1-8B": (59.09, 64.29, 76.79, 50.00, 62.29),
    "InternLM2-20B-Reward": (62.34, 69.39, 66.07, 50.00, 63.43),
    "InternLM2-7B-Reward": (56.49, 61.22, 71.43, 50.00, 59.43),
    "GRM-Gemma-2B": (62.99, 53.06, 64.29, 54.76, 59.43),
    "judge: Vanilla (GPT-4o)": (44.16, 47.96, 66.07, 61.90, 50.86),
    "judge: Arena-Hard (GPT-4o)": (50.65, 54.08, 75.00, 59.52, 56.57),
    "judge: Arena-Hard (o3-mini high)": (67.53, 89.80, 87.50, 100.0, 80.86),
    "judge: JudgeLM-7B": (23.38, 29.59, 32.14, 11.90, 25.14),
}
SOURCES = {
    "knowledge": "mmlu-pro-law",
    "reasoning": "livebench-reasoning",
    "math": "livebench-math",
    "coding": "livecodebench",
}
# Decisions in both orders on a pair whose label is A>B: what the paper counts as right, and as wrong.
RIGHT = (("A>B", "B>A"), ("A>B", "A=B"), ("A=B", "B>A"))
WRONG = (("A>B", "A>B"), ("B>A", "A>B"), ("A=B", "A=B"), ("B>A", "A=B"))


def judgments(model: str, index: int, *, right: bool) -> list[dict[str, Any]]:
    if model.startswith("judge"):
        kinds = RIGHT if right else WRONG
        return [{"judgment": {"response": ""}, "decision": decision} for decision in kinds[index % len(kinds)]]
    scores = [0.25, -1.5] if right else [-1.5, 0.25]
    return [{"judgment": {"scores": order}, "decision": "A>B"} for order in (scores, scores[::-1])]


@pytest.mark.parametrize("model", JUDGEBENCH)
def test_judgebench_tables(tmp_path: Path, model: str) -> None:
    *percents, overall = JUDGEBENCH[model]
    rows = []
    for subset, percent in zip(load_suite("judgebench").subsets, percents, strict=True):
        assert subset.items is not None
        right = round(percent / 100 * subset.items)
        rows += [
            {
                "pair_id": f"{subset.name}-{index}",
                "source": SOURCES[subset.name],
                "question": f"{subset.name} {index}",
                "label": "A>B",
                "judgments": judgments(model, index, right=index < right),
            }
            for index in range(subset.items)
        ]
    path = tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = totals("judgebench", path)
    assert [round(made[name].percent, 2) for name in SOURCES] == list(percents)
    assert round(made["micro"].percent, 2) == overall
    assert made["macro"].percent == pytest.approx(sum(percents) / 4, abs=0.005)
