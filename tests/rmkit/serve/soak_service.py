"""The service of the soak test, a process of its own: two models of different scales, swapped again and again.

python -m tests.rmkit.serve.soak_service PORT LEDGER_URL
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn

from rmkit.ledger import open_ledger
from rmkit.serve.http.app import create_app
from rmkit.serve.http.connections import Connection
from rmkit.serve.server import KEEP_ALIVE_S
from rmkit.types import Candidates, Comparison, Completion, ModelInfo, Score, compare_by_score

SWAP_S = 0.7


class Scaled:
    """(length of the reply) * factor + offset; infinite for "inf"."""

    def __init__(self, factor: float, offset: float) -> None:
        self.info = ModelInfo("soak", "explicit", "rating", True, fingerprint=f"{factor:g}/{offset:g}")
        self.factor = factor
        self.offset = offset

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return [[self._score(one) for one in item.completions] for item in batch]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)

    def _score(self, completion: Completion) -> Score:
        if completion.text == "inf":
            return Score(float("inf"))
        return Score(len(completion.text) * self.factor + self.offset)


MODELS = (Scaled(1, 0), Scaled(-3, 1000))


def main(port: int, url: str) -> None:
    logging.basicConfig(level=logging.WARNING)
    app = create_app({"soak": MODELS[0]}, ledger=open_ledger(url))
    options: dict[str, Any] = {"log_level": "error", "access_log": False, "timeout_keep_alive": KEEP_ALIVE_S}
    server = uvicorn.Server(uvicorn.Config(app, port=port, http=Connection, **options))

    async def run() -> None:
        swapping = asyncio.create_task(swap())
        await server.serve()
        swapping.cancel()

    async def swap() -> None:
        turn = 0
        while True:
            await asyncio.sleep(SWAP_S)
            turn += 1
            app.state.engine.batchers["soak"].swap(MODELS[turn % 2])

    asyncio.run(run())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
