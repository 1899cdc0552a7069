"""`rmkit queue simulate`: what each strategy would have learned from how many labels, on a set that has them all.

Pairs are cut by prompt family into a pool and a held-out half. Every run starts from the same random labels, then
takes a batch at a time by its strategy, drawn as the studio draws (with propensities), and fits linear heads on frozen
features: K bootstrap resamples for the scores, one fit on all labels for the accuracy. Seeds change the cut, the first
labels and the draws; runs of one seed are paired, and so are the differences that are reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeling_ui.desk.display_order import drawing
from labeling_ui.learning.strategies import Floats, Pool, SimulationConfig, scores, weights
from labeling_ui.projects.definition import Strategy
from rmkit import config
from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Labeled:
    """A fully labeled set: `x` [n, D] features of first minus second, `p` [n] that first is better, `family` [n]."""

    x: Floats
    p: Floats
    family: NDArray[np.int64]


def simulate(data: Labeled, settings: SimulationConfig) -> dict[str, Floats]:
    """Held-out accuracy [seeds, rounds + 1] by strategy."""
    from threadpoolctl import threadpool_limits

    values: dict[str, Floats] = {}
    total = settings.seeds * len(settings.strategies)
    # Two threads inside one small fit are slower than one, on a busy machine many times.
    with display.progress("simulating", total) as advance, threadpool_limits(1):
        for name in settings.strategies:
            runs = []
            for seed in range(settings.seeds):
                runs.append(_run(data, name, settings, seed=seed))
                advance(1)
            values[name] = np.array(runs)
    return values


def _run(data: Labeled, strategy: Strategy, settings: SimulationConfig, *, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    families = rng.permutation(np.unique(data.family))
    held_out = np.isin(data.family, families[: len(families) // 2])
    pool, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    if len(pool) < settings.start + settings.batch:
        raise ConfigError(f"the pool has {len(pool)} pairs, fewer than start + batch; lower them or bring more data")
    labeled = np.zeros(len(pool), bool)
    labeled[rng.permutation(len(pool))[: settings.start]] = True
    x, p = data.x[pool], data.p[pool]
    accuracy = []
    for round_ in range(settings.rounds + 1):
        head = _fit(x[labeled], p[labeled], settings.penalty)
        accuracy.append(_accuracy(data.x[test] @ head, data.p[test]))
        if round_ == settings.rounds or labeled.all():
            break
        known = Pool(bootstrap_p(x, p, labeled, settings, rng), x, labeled, np.where(labeled, p, np.nan))
        score = scores(strategy, known, batch=settings.batch, seed=seed * 1000 + round_)
        left = np.flatnonzero(~labeled)
        order, _ = drawing(weights(score[left]), seed=seed * 1000 + round_)
        labeled[left[order[: settings.batch]]] = True
    return accuracy + accuracy[-1:] * (settings.rounds + 1 - len(accuracy))


def bootstrap_p(
    x: Floats, p: Floats, labeled: NDArray[np.bool_], settings: SimulationConfig, rng: np.random.Generator
) -> Floats:
    """[K, n] win probabilities by heads fitted on resamples of the labeled rows."""
    known = np.flatnonzero(labeled)
    draws = [rng.choice(known, len(known)) for _ in range(settings.members)]
    margins = np.array([x @ _fit(x[drawn], p[drawn], settings.penalty) for drawn in draws])
    return np.asarray(1 / (1 + np.exp(-np.clip(margins, -30, 30))))


def _fit(x: Floats, p: Floats, penalty: float) -> Floats:
    """[D] logistic regression without intercept; every pair enters in both orders, so soft labels are weights."""
    from sklearn.linear_model import LogisticRegression

    both, label = np.concatenate([x, -x]), np.repeat([1, 0], len(x))
    mirrored = np.concatenate([both, both])
    classes = np.concatenate([label, 1 - label])
    weight = np.concatenate([p, p, 1 - p, 1 - p]) / 2
    used = weight > 0
    model = LogisticRegression(C=penalty, fit_intercept=False, max_iter=200)
    return np.asarray(model.fit(mirrored[used], classes[used], sample_weight=weight[used]).coef_[0])


def _accuracy(margin: Floats, p: Floats) -> float:
    decided = p != 0.5
    right = np.where(margin == 0, 0.5, (margin > 0) == (p > 0.5))
    return float(right[decided].mean())


def summary(values: Mapping[str, Floats], settings: SimulationConfig) -> list[dict[str, object]]:
    """Per strategy: final accuracy, its paired difference to random, and the labels to reach random's final accuracy.

    The labels are read off the mean curve (None where it never gets there); their share is of random's. Intervals are
    Student's t over seeds, 95% for all strategies together (Bonferroni).
    """
    spent = settings.start + settings.batch * np.arange(settings.rounds + 1)
    goal = values["random"].mean(0)[-1]
    rows = []
    for name, runs in values.items():
        area = (runs - values["random"]).mean(1)
        reached = np.flatnonzero(runs.mean(0) >= goal)
        labels = int(spent[reached[0]]) if len(reached) else None
        rows.append(
            {
                "strategy": name,
                "final_percent": 100 * runs.mean(0)[-1],
                "gain_points": 100 * area.mean(),
                "gain_interval": [100 * value for value in _interval(area, n_compared=len(values) - 1)],
                "labels_to_goal": labels,
                "share_of_random": None if labels is None else labels / int(spent[-1]),
            }
        )
    return rows


def _interval(values: Floats, *, n_compared: int) -> tuple[float, float]:
    from scipy.stats import t

    if len(values) < 2:
        return float("-inf"), float("inf")
    reach = t.ppf(1 - 0.025 / max(n_compared, 1), len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - reach), float(values.mean() + reach)


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """What to do, in a sentence: a strategy is recommended only where its gain over random is clear of zero."""
    clear = [row for row in rows if row["strategy"] != "random" and row["gain_interval"][0] > 0]
    if not clear:
        return "no strategy is clearly better than random on this data: label at random"
    best = max(clear, key=lambda row: row["gain_points"])
    share = best["share_of_random"]
    reach = "does not reach random's final accuracy" if share is None else f"reaches it with {share:.0%} of the labels"
    low, high = best["gain_interval"]
    return f"{best['strategy']}: {best['gain_points']:+.2f} points [{low:+.2f}, {high:+.2f}] on average, and {reach}"


def read_labeled(files: Sequence[Path]) -> tuple[Labeled, dict[str, int]]:
    """A set from dumps with pairs or votes; features are prompt-conditioned differences of frozen vectors."""
    from evaluation.suites.voted_pairs import read_voted_pairs
    from rmkit.features.encoder import Encoder, EncoderConfig
    from rmkit.models.small.frozen import pair_features

    rows, skipped = read_voted_pairs(files)
    pairs = [row.pair for row in rows]
    result = pair_features(pairs, Encoder(EncoderConfig()))
    vectors = result.vectors.astype(np.float64)
    prompt, first, second = (vectors[result.rows[:, at]] for at in range(3))
    x = np.concatenate([first - second, prompt * (first - second) * np.sqrt(vectors.shape[1])], axis=1)
    # Pairs that always name the better response first would teach the sign; half are turned round.
    turn = np.random.default_rng(0).random(len(pairs)) < 0.5
    p = np.where(turn, 1 - result.p, result.p)
    return Labeled(np.where(turn[:, None], -x, x), p, np.array([pair.family for pair in pairs])), skipped


def _simulate(argv: list[str]) -> int:
    parser = arguments.parser(
        "queue simulate",
        "Replay a fully labeled set: accuracy over labels spent, for each way of choosing what to label next.",
        examples=[
            "queue simulate annotators.jsonl.gz --plot queue.png",
            "queue simulate hh.jsonl.gz --seeds 20 --json",
        ],
    )
    defaults = SimulationConfig()
    parser.add_argument("files", nargs="+", type=Path, help="dumps of pairs, or of votes by several people")
    parser.add_argument("--start", type=int, default=defaults.start, help="random labels to begin with")
    parser.add_argument("--batch", type=int, default=defaults.batch, help="labels a round")
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help="rounds of labeling")
    parser.add_argument("--seeds", type=int, default=defaults.seeds, help="repetitions")
    parser.add_argument("--plot", type=arguments.output_path, help="PNG or SVG of accuracy over labels spent")
    options = parser.parse_args(argv)
    values: dict[str, Any] = {name: getattr(options, name) for name in ("start", "batch", "rounds", "seeds")}
    settings = config.build(SimulationConfig, values, where="queue simulate")
    data, skipped = read_labeled(options.files)
    results = simulate(data, settings)
    rows = summary(results, settings)
    if options.plot:
        from labeling_ui.learning.simulate_plot import plot

        plot(results, settings, options.plot, title=" and ".join(file.stem.split(".")[0] for file in options.files))
    result = {
        "pairs": len(data.p),
        "families": len(np.unique(data.family)),
        "skipped": skipped,
        "settings": asdict(settings),
        "strategies": rows,
        "verdict": verdict(rows),
    }
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def _text(result: Mapping[str, Any]) -> str:
    lines = [f"{result['pairs']} pairs in {result['families']} families, {result['settings']['seeds']} seeds", ""]
    rows = []
    for row in result["strategies"]:
        low, high = row["gain_interval"]
        gain = "" if row["strategy"] == "random" else f"{row['gain_points']:+.2f} [{low:+.2f}, {high:+.2f}]"
        share = "never" if row["labels_to_goal"] is None else f"{row['labels_to_goal']} ({row['share_of_random']:.0%})"
        rows.append([row["strategy"], f"{row['final_percent']:.1f}%", gain, share])
    table = display.table(("strategy", "final", "over random, mean of the curve", "labels to its goal"), rows)
    return "\n".join([*lines, table, "", result["verdict"]])


main = Verbs(
    "queue",
    "What each way of choosing the next item to label would have learned.",
    {"simulate": Command(_simulate, "replay a fully labeled set: accuracy over labels spent")},
    examples=["queue simulate annotators.jsonl.gz --plot queue.png"],
)
