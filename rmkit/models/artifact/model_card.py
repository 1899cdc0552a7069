"""README.md of an artifact: a model card in Hugging Face's format, its evaluation table both for people and machines.

The front matter is YAML metadata with `model-index` (https://huggingface.co/docs/hub/model-cards); its values are
written as JSON, which is YAML. Numbers come from reward_model.json, calibration.json and, where `rmkit models card` put
them there, `evaluation.json` with results of benchmark suites. The card only tells; nothing reads a number from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rmkit.atomic import write_text
from rmkit.config import read_object
from rmkit.errors import ModelError

CARD, EVALUATION, CALIBRATION, README = "reward_model.json", "evaluation.json", "calibration.json", "README.md"

Facts = Mapping[str, Any]


def write_card(folder: Path, *, published: Facts | None = None) -> None:
    """Write README.md from what lies in the folder. `published` are more fields of the metadata (license, base_model,
    datasets, language) and, as `origins`, lines of a section on licenses and origins."""
    card = read_object(folder / CARD, raises=ModelError, hint="train the model again")
    results = _stored(folder / EVALUATION).get("results", [])
    calibration = _stored(folder / CALIBRATION)
    more = {key: value for key, value in (published or {}).items() if key != "origins"}
    origins = ["## Licenses and origins", "", *(published or {})["origins"], ""] if published else []
    body = "\n".join([_body(card, results, calibration), *origins])
    write_text(folder / README, front_matter(card, results, more) + body)


def _stored(path: Path) -> dict[str, Any]:
    return read_object(path, raises=ModelError, hint="delete it and write it again") if path.is_file() else {}


def front_matter(card: Facts, results: Sequence[Facts], more: Facts | None = None) -> str:
    """YAML between two lines of dashes; `results` are entries of model-index, each with task, dataset and metrics,
    `more` further fields."""
    transformer = "model.safetensors" in card["files"]
    listed = [*_validation_entry(card), *results]
    fields = dict(more or {}) | {
        "library_name": "transformers" if transformer else "rmkit",
        "pipeline_tag": "text-classification",
        "tags": ["reward-model", "rmkit", card["kind"]],
        "model-index": [{"name": card.get("name") or "reward model", "results": listed}] if listed else None,
    }
    lines = [f"{key}: {_yaml(value)}" for key, value in fields.items() if value is not None]
    return "\n".join(["---", *lines, "---", ""])


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _validation_entry(card: Facts) -> list[dict[str, object]]:
    """Validation accuracy as an entry of model-index; none where training told no accuracy."""
    accuracy = (card.get("validation") or {}).get("accuracy")
    if not accuracy:
        return []
    dataset = _dataset(card)
    interval = accuracy.get("interval") or {}
    facts = {key: accuracy[key] for key in ("numerator", "denominator", "ties", "unscored")}
    metric = {
        "type": "accuracy",
        "name": "pair accuracy (percent)",
        "value": round(100 * accuracy["value"], 4),
        "verified": False,
        "args": facts | {end: _percent(interval.get(end)) for end in ("low", "high")},
    }
    where = {"type": dataset, "name": dataset, "split": "validation"}
    task = {"type": "text-classification", "name": "reward modeling"}
    return [{"task": task, "dataset": where, "metrics": [metric]}]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 4)


def _dataset(card: Facts) -> str:
    return str((card.get("dataset") or {}).get("ref") or "unnamed dataset")


def _body(card: Facts, results: Sequence[Facts], calibration: Facts) -> str:
    return "\n".join(
        [
            "",
            f"# {card.get('name', 'reward model')}",
            "",
            f"Reward model (`{card['model']}`, kind {card['kind']}, scale {card['scale']}) {_origin(card)}. Higher is "
            "better; only differences between answers to one prompt mean anything.",
            "",
            f"Fingerprint `{card['fingerprint']}`.",
            "",
            *_use(card),
            "",
            "## Evaluation",
            "",
            *_table([*_validation_entry(card), *results]),
            "",
            *_quality(card),
            *_after(calibration),
            "## Training",
            "",
            "```json",
            json.dumps({key: card.get(key) for key in ("seed", "config", "training")}, indent=1, ensure_ascii=False),
            "```",
            "",
        ]
    )


def _origin(card: Facts) -> str:
    if card["model"] == "adopted":
        source = card["source"]
        origin = f"{source['hub']}@{source['revision']}" if source.get("hub") else "a folder"
        return f"that others trained, adopted with rmkit {card['rmkit']} from {origin}"
    digest = (card.get("dataset") or {}).get("digest")
    return f"trained with rmkit {card['rmkit']} on {_dataset(card)} (digest `{digest}`)"


def _use(card: Facts) -> list[str]:
    lines = [
        "```python",
        "from rmkit.models import load_model",
        'model = load_model("path/to/this/folder")  # verifies files, fingerprint and golden scores',
        "```",
    ]
    if "model.safetensors" in card["files"] and card["model"] == "explicit":
        truncation = json.dumps(card["config"]["truncation"])
        lines += [
            "",
            "`AutoModelForSequenceClassification.from_pretrained` loads the same weights and gives the same scores. "
            "Render with the saved chat template; the special tokens that the tokenizer puts at either end must be "
            "there exactly once, whoever writes them (golden.jsonl holds the ids of its texts to compare with). Pad "
            f"token and EOS differ on purpose. Truncation: `{truncation}`. Reasoning of a response: "
            f"`{card['config'].get('reasoning', 'keep')}`.",
        ]
    return lines


def _table(results: Sequence[Facts]) -> list[str]:
    if not results:
        return ["No result is stored yet: `rmkit eval`, then `rmkit models card`."]
    lines = [
        "| dataset | measure | percent | 95% interval | right / of | ties | unscored |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        data = result["dataset"]
        name = data["name"] + (f", {data['split']}" if data.get("split") else "")
        lines += [_line(name, metric) for metric in result["metrics"]]
    return lines


def _line(dataset: str, metric: Facts) -> str:
    args = metric["args"]
    between = "-" if args["low"] is None else f"{args['low']:.1f} to {args['high']:.1f}"
    ratio = "-" if args["numerator"] is None else f"{args['numerator']:.6g} / {args['denominator']:.6g}"
    return (
        f"| {dataset} | {metric['name']} | {metric['value']:.2f} | {between} | {ratio} | {args['ties']} | "
        f"{args['unscored']} |"
    )


def _quality(card: Facts) -> list[str]:
    """Log loss and calibration error on the validation split, at the stored temperature for small models."""
    validation = card.get("validation") or {}
    known = [f"{label} {validation[key]:.3f}" for key, label in _MORE if isinstance(validation.get(key), int | float)]
    return [f"On the validation split: {', '.join(known)}.", ""] if known else []


_MORE = (("log_loss", "log loss"), ("ece", "calibration error"), ("length_correlation", "correlation with length"))


def _after(calibration: Facts) -> list[str]:
    if not calibration:
        return []
    lines = ["## Calibration and normalization", ""]
    if link := calibration.get("link"):
        lines += [f"Probabilities: {link['method']}, fitted on {calibration['link_facts']['data']}.", ""]
    if scale := calibration.get("normalization"):
        clip = f", clipped to plus or minus {scale['clip']:g}" if scale.get("clip") else ""
        lines += [
            f"Normalized score = (raw - {scale['mean']:.6g}) / {scale['scale']:.6g}{clip}, measured on "
            f"{calibration['normalization_facts']['data']}.",
            "",
        ]
    return lines
