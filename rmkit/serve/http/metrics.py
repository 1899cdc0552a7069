"""What /metrics tells Prometheus. With several processes the counts of all are added up (PROMETHEUS_MULTIPROC_DIR)."""

from __future__ import annotations

import os
from typing import Any

from rmkit.serve.queue.engine import Engine
from rmkit.serve.rewards.reward_log import RewardLog, Served
from rmkit.types import Score

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class ServiceMetrics:
    """The counters of one service."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, disable_created_metrics

        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("rmkit_requests", "Requests by route and status", ["route", "status"], **options)
        self.seconds = Histogram("rmkit_request_seconds", "Time to answer", ["route"], buckets=SECONDS, **options)
        self.scores = Counter("rmkit_scores", "Completions by outcome", ["model", "outcome"], **options)
        self.values = Summary("rmkit_reward", "Sum and count of the raw rewards", ["model"], **options)
        self.batches = Gauge("rmkit_batches", "Micro-batches scored", ["model"], multiprocess_mode="sum", **options)
        self.lost = Gauge("rmkit_reward_log_lost", "Requests not logged", multiprocess_mode="sum", **options)
        self.unlogged = Gauge(
            "rmkit_reward_log_waiting", "Requests not in the ledger yet", multiprocess_mode="livesum", **options
        )
        self.queue = Gauge(
            "rmkit_queue_tokens", "Estimated tokens waiting", ["model"], multiprocess_mode="livesum", **options
        )
        self.model = Gauge(
            "rmkit_model", "1 for what was served", ["model", "fingerprint"], multiprocess_mode="livemax", **options
        )

    def visited(self, route: str, status: int | None, seconds: float) -> None:
        """Count an answered request; `route` is the pattern, so that paths make no new series."""
        self.requests.labels(route, str(status or "gone")).inc()
        self.seconds.labels(route).observe(seconds)

    def served(self, served: Served) -> None:
        """Count the completions of an answered request."""
        rows = [row for row in served.answer.results if isinstance(row, list)]
        scores: list[Score] = [score for row in rows for score in row]
        failed = sum(score.unscored is not None for score in scores)
        self.scores.labels(served.name, "scored").inc(len(scores) - failed)
        self.scores.labels(served.name, "unscored").inc(failed)
        for score in scores:
            if score.unscored is None:
                self.values.labels(served.name).observe(score.value)

    def state(self, engine: Engine, rewards: RewardLog | None) -> None:
        """Take over what the engine and the reward log count themselves."""
        if rewards is not None:
            self.lost.set(rewards.lost)
            self.unlogged.set(rewards.waiting)
        for name, batcher in engine.batchers.items():
            self.batches.labels(name).set(batcher.batches)
            self.queue.labels(name).set(batcher.waiting[1])
            self.model.labels(name, batcher.model.info.fingerprint).set(1)

    def text(self) -> bytes:
        """The exposition in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        all_processes = CollectorRegistry()
        MultiProcessCollector(all_processes)  # type: ignore[no-untyped-call]
        return generate_latest(all_processes)
