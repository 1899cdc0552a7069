"""Steps that train small models, or ask one for replies, for tests.harness.test_growth: so many rows each."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.steps import Context, configure, run_step
from rmkit.ids import assistant_message, user_message
from tests.data_pipelines.frames import frame, pair
from tests.data_pipelines.kind_pairs import step_settings
from tests.exports import KIND, RUDE, TOPICS

Call = Callable[[], Any]

LEARNED: dict[str, dict[str, Any]] = {
    "peer_review": {"noise": 0.1},
    "cross_fit": {},
    "uncertainty": {"passes": 4, "estimator_epochs": 2},
    "confident_learning": {},
    "reward_gap": {},
}


def learned(name: str, size: int) -> Call:
    """A step that judges so many pairs by heads on the features of a tiny encoder; one label in ten is wrong."""
    from tests.rmkit.tiny_encoder import write_tiny_encoder

    folder = Path(tempfile.mkdtemp())
    os.environ["RMKIT_HOME"] = str(folder / "home")
    options = step_settings(write_tiny_encoder(folder / "encoder")) | LEARNED[name]
    draw, rows = np.random.default_rng(9), []
    for at in range(size):
        kind, rude = (" ".join(draw.choice(words + TOPICS, 8)) + f" {at}" for words in (KIND, RUDE))
        texts = sorted(assistant_message(text) for text in (kind, rude))
        first = float((texts[0] == assistant_message(kind)) != (at % 10 == 0))
        prompt = user_message(f"tell me about {draw.choice(TOPICS)} {at}")
        rows.append(pair(prompt, "x", "y") | {"responses": texts, "p": [first, 1 - first], "id": f"{at:032x}"})
    given, config = frame(rows), configure(name, options, where="growth")
    return lambda: run_step(name, given, config, context=Context())


def generated(size: int) -> Call:
    """Two replies of a server in this process to each of so many prompts."""
    from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint

    os.environ["RMKIT_HOME"] = tempfile.mkdtemp()
    rows = [pair(user_message(f"p {at}"), "x", "y") | {"id": f"{at:032x}"} for at in range(size)]
    endpoint = ScriptedEndpoint(lambda request: Reply(text=f"reply {request['seed']}")).__enter__()
    options = {"generator": {"model": "m", "base_url": endpoint.base_url}, "samples": 2}
    given, config = frame(rows), configure("generate", options, where="growth")
    return lambda: run_step("generate", given, config, context=Context())


CASES: dict[str, tuple[int, Callable[[int], Call]]] = {
    **{f"{name} rows": (1_500, functools.partial(learned, name)) for name in LEARNED},
    "generate rows": (400, generated),
}
