"""The evaluation section of a model card: Hugging Face's `model-index` form of benchmark results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_index(result: Mapping[str, Any]) -> dict[str, Any]:
    """`{"model-index": [...]}` with one entry per model, ready to be put into a card's front matter.

    Only whole measures are listed: a missing total is left out, not replaced. `value` is in percent; numerator,
    denominator, interval, fingerprint, suite hash, command and the number over all items stand beside it in `args`.
    """
    return {"model-index": [_entry(result, model) for model in result["models"]]}


def _entry(result: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, object]:
    dataset = {
        "type": result["suite"],
        "name": result["title"],
        "args": {"suite_hash": result["suite_hash"], "digests": result["digests"], "missing": result["missing"]},
    }
    metrics = [_metric(measure) for measure in model["measures"].values() if measure["percent"] is not None]
    results = {
        "task": {"type": "text-classification", "name": "reward modeling"},
        "dataset": dataset,
        "metrics": metrics,
        "source": {"name": f"{result['command']} (fingerprint {model['fingerprint']})", "url": result["paper"]},
    }
    return {"name": model["name"], "results": [results]}


def _metric(measure: Mapping[str, Any]) -> dict[str, object]:
    keys = ("numerator", "denominator", "low", "high", "n", "ties", "unscored", "clusters", "of_all")
    return {
        "type": "accuracy",
        "name": measure["name"],
        "value": round(measure["percent"], 4),
        "verified": False,
        "args": {key: measure[key] for key in keys},
    }
