"""`rmkit bench upo`: UPO and its ablations on a tiny policy whose world has a known preference.

The world is that of `rmkit bench policy`: people judge with noise, so the reward model that learns from their pairs
errs, and what a reply is worth is known. Each arm runs `rmkit loop upo`; it is judged by what replies to held-out
prompts are worth after the last round, and by how many of the new pairs that it trained on have the worse reply in
front.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from data_pipelines.front import ingest
from data_pipelines.loops.loop import read_loop
from data_pipelines.loops.runner import LoopResult, run_loop
from data_pipelines.recipes.recipe import parse_recipe, run_recipe
from evaluation.benchmarks.policy.synthetic_task import liking, policy, tokenizer, write_pairs
from rmkit.cli import arguments, display
from rmkit.errors import UsageError
from rmkit.revision import versions_text
from rmkit.training.front import train
from rmkit.types import Candidates, Comparison, ModelInfo, Score, compare_by_score
from warehouse.versions.dataset import load_dataset

ARMS: dict[str, dict[str, Any]] = {
    "UPO": {},
    "without the estimator": {"estimator": "none", "selector": "random"},
    "without alpha": {"alpha": "none"},
    "without the likelihood": {"nll": 0.0},
}
SIZE: dict[str, Any] = {
    "prompts": 30, "samples": 4, "temperature": 1.0, "max_tokens": 14, "max_length": 128, "test_prompts": 60,
    "estimator": "language_model", "estimator_lr": 3e-3, "estimator_epochs": 2, "pair_share": 0.5,
    "test_samples": 12, "lr": 1e-3, "epochs": 2, "nll": 0.02, "beta": 0.1,
}  # fmt: skip


class Liking:
    """The world's preference as a reward model."""

    info = ModelInfo("liking", "explicit", "logit", True, "liking-1")

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return [[Score(float(liking(one.text))) for one in item.completions] for item in batch]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)


def planted(folder: Path | None = None, **_: Any) -> Liking:
    """For `load_model`."""
    return Liking()


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench upo",
        "UPO without its estimator, its smoothing, its likelihood term, on a policy with a known preference.",
        examples=["bench upo --seeds 3 --page docs/benchmarks/upo.md"],
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=200, help="labeled pairs D0, a fifth of them held out")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_page()
    options = parser.parse_args(argv)
    if options.seeds < 2:
        raise UsageError(f"an interval over seeds takes 2 or more, got {options.seeds}")
    runs = []
    with display.progress("seeds", options.seeds) as advance, tempfile.TemporaryDirectory() as temporary:
        for seed in range(options.seeds):
            runs.append(one_seed(Path(temporary) / str(seed), seed, pairs=options.pairs, rounds=options.rounds))
            advance(1)
    result = {"command": arguments.command_line("bench upo", argv), "rounds": options.rounds, "runs": runs}
    text = page(result)
    if options.page:
        options.page.write_text(text)
    display.emit(result, as_json=options.json, text=text)
    return 0


def one_seed(folder: Path, seed: int, *, pairs: int, rounds: int) -> dict[str, Any]:
    """Worth of replies by arm and round (0: after DPO on D0), and the share of wrong new pairs; in a fresh home."""
    before = os.environ.get("RMKIT_HOME")
    os.environ["RMKIT_HOME"] = str(folder / "home")
    try:
        folder.mkdir(parents=True)
        write_pairs(folder / "pairs.jsonl", pairs, seed=seed)
        ingest(folder / "pairs.jsonl", name="people")
        run_recipe(parse_recipe(_SPLIT, where="bench upo"), "people", out="people")
        train("lexical", "people", output=folder / "reward", seed=seed)
        words = tokenizer()
        policy(words, seed=seed).save_pretrained(folder / "policy")
        words.save_pretrained(folder / "policy")
        arms = {}
        for name, change in ARMS.items():
            given: dict[str, Any] = {"policy": str(folder / "policy"), "estimator_model": str(folder / "policy")}
            given |= {"reward": str(folder / "reward"), "test_reward": f"{__name__}:planted", "seed": seed}
            settings = SIZE | given | change | {"rounds": rounds}
            if settings["estimator"] == "none":
                settings["estimator_model"] = ""
            dataset = name.replace(" ", "-").lower()
            result = run_loop(read_loop("upo").with_settings(settings), "people", folder=folder / dataset)
            arms[name] = {"worth": worth(result), "wrong": wrong_share(dataset, rounds)}
    finally:
        if before is None:
            del os.environ["RMKIT_HOME"]
        else:
            os.environ["RMKIT_HOME"] = before
    return {"seed": seed, "arms": arms}


_SPLIT = {"recipe": {"name": "split"}, "step": [{"use": "split"}]}


def worth(result: LoopResult) -> list[float]:
    """Mean planted reward by round, from round 0."""
    return [float(record.facts["evaluate"]["mean_reward"]) for record in result.steps if record.use == "evaluate"]


def wrong_share(dataset: str, rounds: int) -> float:
    """Of the new pairs of all rounds whose replies are not worth the same, the share with the worse one in front."""
    right = []
    for number in range(1, rounds + 1):
        for example in load_dataset(f"{dataset}@round-{number}"):
            row = example.row
            if not any(str(one).startswith("local:") for one in row["generators"] or ()) or len(row["p"] or ()) != 2:
                continue
            values = [liking(completion.text) for completion in example.candidates.completions]
            if values[0] != values[1] and row["p"][0] != row["p"][1]:  # smoothed to a tie, a label has no side
                right.append((values[0] > values[1]) == (row["p"][0] > row["p"][1]))
    return 1 - fmean(right)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% t interval over the seeds."""
    from scipy.stats import t

    mean, half = fmean(values), float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def page(result: Mapping[str, Any]) -> str:
    """Markdown: one row an arm."""
    runs, rounds = result["runs"], result["rounds"]
    header = ["arm", "after DPO on D0", *(f"round {at}" for at in range(1, rounds + 1)), "UPO minus it", "wrong pairs"]
    rows = []
    for name in ARMS:
        by_round = [fmean(run["arms"][name]["worth"][at] for run in runs) for at in range(rounds + 1)]
        gains = [run["arms"]["UPO"]["worth"][-1] - run["arms"][name]["worth"][-1] for run in runs]
        gain = "" if name == "UPO" else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*interval(gains))
        wrong = f"{100 * fmean(run['arms'][name]['wrong'] for run in runs):.1f}%"
        rows.append([name, *(f"{value:+.2f}" for value in by_round), gain, wrong])
    return "\n".join(
        [
            "# UPO and its ablations",
            "",
            f"    {result['command']}",
            "",
            ABOUT,
            display.markdown(header, rows),
            "",
            f"{len(runs)} seeds; {versions_text('torch', 'transformers')}.",
            "",
        ]
    )


ABOUT = """\
A Llama of 64 dimensions with random weights, people who judge its replies with noise, a lexical reward model that
learned from their pairs (D0), and a language model with a pair head as estimator, trained on D0 too. Each arm is
`rmkit loop upo` with other settings: DPO on D0, then rounds. Worth: courteous minus rude words of replies to held-out
prompts, which no model is told. The difference to UPO after the last round is paired by seed, with a 95% t interval.
Wrong pairs: of the new pairs that were trained on, those with the worse reply in front.
"""
