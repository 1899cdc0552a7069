"""The prompt book for a trainer: tell what happened, ask what to train on.

    book = PromptClient("http://HOST:PORT", book="run-7")
    rewards = ObservedRewards(my_reward, book, prompt="prompt_id")          # TRL calls it like my_reward
    trainer = GRPOTrainer(model, reward_funcs=rewards, train_dataset=proposed_dataset(rows, book, per_step=8),
                          callbacks=[rewards.callback()], ...)

The callback sends what was observed after each step. The dataset asks for the next prompts when the trainer wants them,
so it must be read in the training process (`dataloader_num_workers=0`), which asks for `max_steps` and, in TRL,
`accelerator_config={"dispatch_batches": False}`, as every stream does.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rmkit.errors import DataError
from rmkit.ids import digest
from rmkit.serve.clients.address import address
from rmkit.serve.clients.service_http import Patience, RewardServiceError, ServiceHttp

if TYPE_CHECKING:
    from datasets import IterableDataset
    from transformers import TrainerCallback

log = logging.getLogger(__name__)

KNOWN_AT_ONCE = 5000  # prompts in one request

Rows = Sequence[Mapping[str, Any]]


class PromptClient:
    """One book of a reward service (see `address` for tokens). Raises RewardServiceError where it cannot be asked."""

    def __init__(
        self,
        url: str | None = None,
        *,
        book: str = "default",
        token: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.service = ServiceHttp(address(url, token=token), patience or Patience())
        self.book = book

    def observe(self, observations: Sequence[Mapping[str, Any]], *, request_id: str | None = None) -> bool:
        """Store observations, as the fields of `rmkit.curriculum.observation.Observation`; see the book's `observe`.

        Repeated after a lost answer, they count once.
        """
        body = {"book": self.book, "observations": list(observations), "request_id": request_id or uuid.uuid4().hex}
        return bool(self.service.ask("/rmkit/v1/prompts/observe", body)["stored"])

    def propose(self, n: int, **options: Any) -> list[dict[str, object]]:
        """At most n proposals, best first; `options` are utility, among, bandit, skip and seed of the route."""
        proposals: list[dict[str, Any]] = self.service.ask(
            "/rmkit/v1/prompts/propose", {"book": self.book, "n": n, **options}
        )["proposals"]
        return proposals


class ObservedRewards:
    """A TRL reward function whose results go to the book as well, grouped by the column `prompt`.

    `category` names a column of categories. What is sent are the function's own numbers, so it should be the outcome
    and not a shaped reward; pass other outcomes by `outcome(rewards, columns)`.
    """

    def __init__(
        self,
        function: Callable[..., list[float | None]],
        client: PromptClient,
        *,
        prompt: str,
        category: str | None = None,
        outcome: Callable[[list[float | None], Mapping[str, Any]], list[float | None]] | None = None,
    ) -> None:
        self.__name__ = getattr(function, "__name__", "observed_rewards")
        self.function, self.client, self.prompt, self.category, self.outcome = (
            function,
            client,
            prompt,
            category,
            outcome,
        )
        self._new: list[dict[str, Any]] = []
        self._batches: list[tuple[str, list[dict[str, Any]]]] = []  # what the service has not acknowledged, by request

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """The function's rewards, unchanged."""
        rewards = self.function(prompts=prompts, completions=completions, **columns)
        if self.prompt not in columns:
            raise DataError(
                f"no column {self.prompt!r} among {sorted(columns)}; name the dataset's column of prompt ids"
            )
        outcomes = self.outcome(rewards, columns) if self.outcome else rewards
        groups: dict[str, dict[str, Any]] = {}
        for place, (name, reward) in enumerate(zip(columns[self.prompt], outcomes, strict=True)):
            one = groups.setdefault(str(name), {"prompt": str(name), "rewards": []})
            one["rewards"].append(None if reward is None or reward != reward else float(reward))
            if self.category:
                one["category"] = columns[self.category][place]
        self._new += groups.values()
        return rewards

    def flush(self) -> None:
        """Send what waits. What cannot be sent now is sent with the next, under the same id, so it counts once."""
        if self._new:
            self._batches.append((uuid.uuid4().hex, self._new))
            self._new = []
        while self._batches:
            request_id, observations = self._batches[0]
            try:
                self.client.observe(observations, request_id=request_id)
            except RewardServiceError as error:
                log.warning("the prompt book waits for %d calls: %s", len(self._batches), error)
                return
            del self._batches[0]

    def callback(self) -> TrainerCallback:
        """What the trainer calls after each step and at the end."""
        from transformers import TrainerCallback

        flush = self.flush

        class Observe(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *_: Any, **__: Any) -> None:
                flush()

            def on_train_end(self, *_: Any, **__: Any) -> None:
                flush()

        return Observe()


def proposed_dataset(
    rows: Rows, client: PromptClient, *, prompt: str = "prompt_id", per_step: int, **options: Any
) -> IterableDataset:
    """`proposed_rows` as the stream that trainers take."""
    from datasets import IterableDataset

    rows = tuple(rows)  # a list would be taken for shards, of which a reader gets one
    return IterableDataset.from_generator(
        proposed_rows, gen_kwargs={"rows": rows, "client": client, "prompt": prompt, "per_step": per_step, **options}
    )


def proposed_rows(
    rows: Rows, client: PromptClient, *, prompt: str = "prompt_id", per_step: int, **options: Any
) -> Iterator[dict[str, object]]:
    """The rows without end, `per_step` at a time, as the book proposes them; all are made known to the book first.

    `prompt` is the column of ids; `options` are those of `PromptClient.propose`. Raises DataError for an id that rows
    share, and where the book proposes none of the rows.
    """
    by_id = {str(row[prompt]): dict(row) for row in rows}
    if len(by_id) != len(rows):
        raise DataError(f"column {prompt!r} holds {len(by_id)} ids for {len(rows)} rows; each row needs its own")
    names = list(by_id)
    for begin in range(0, len(names), KNOWN_AT_ONCE):
        known = names[begin : begin + KNOWN_AT_ONCE]
        client.observe([{"prompt": name} for name in known], request_id=digest(known))
    while True:
        proposed = [one["prompt"] for one in client.propose(per_step, **options) if one["prompt"] in by_id]
        if not proposed:
            raise DataError(f"the book {client.book!r} proposes none of the {len(by_id)} rows")
        for name in proposed:
            yield by_id[name]
