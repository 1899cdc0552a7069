"""What the commands of search share: problems, the policy, the model, and one search over all problems."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from rmkit.chat.reader import read_conversation
from rmkit.cli.arguments import Parser
from rmkit.config import build, read_toml
from rmkit.data.example import prompt_facts
from rmkit.errors import DataError, UsageError
from rmkit.generate import Engine, Request
from rmkit.generate.config import GeneratorConfig, open_generator
from rmkit.ids import content_hash, messages_json
from rmkit.ledger import Ledger, open_ledger
from rmkit.search.adapters import GeneratorProposer, ModelScorer
from rmkit.search.space import Scorer
from rmkit.types import Candidates, Completion, Message, RewardModel

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Problem:
    id: str
    item: Candidates

    @property
    def key(self) -> str:
        """The hash of the prompt: what decides on which side of a split it is."""
        return content_hash(messages_json(self.item.prompt))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the policy writes: the settings of its requests and where steps end."""

    separator: str
    temperature: float
    max_tokens: int
    seed: int
    priors: bool = False

    def proposer(self, engine: Engine, problem: Problem, *, seed: int | None = None) -> GeneratorProposer:
        """The proposer of one problem; `seed` in place of the policy's own."""
        request = Request(
            prompt=problem.item.prompt,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed if seed is None else seed,
        )
        return GeneratorProposer(engine, request, separator=self.separator, priors=self.priors)


def add_arguments(parser: Parser) -> None:
    """What both commands take: model, generator, prompts, and how the policy writes."""
    parser.add_model("--model", help="scores steps or whole answers; majority needs none")
    parser.add_device()
    parser.add_argument("--generator", required=True, help="a TOML with [generator], or the folder of a local model")
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="JSON lines: prompt, reference")
    parser.add_argument("--verifier", default="answer", help="what says whether an answer is right, by the reference")
    parser.add_argument("--separator", default="\n", help="stands between two steps (default a line break)")
    parser.add_argument("--temperature", type=float, default=0.8, help="of the policy")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="of a step or a solution")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="problems searched at the same time")
    parser.add_limit()
    parser.add_seed()


def policy_of(options: Any) -> Policy:
    if not options.temperature > 0 or min(options.max_tokens, options.workers) < 1 or not options.separator:
        raise UsageError("--temperature must be above 0, --max-tokens and --workers positive, --separator not empty")
    return Policy(
        separator=options.separator,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        seed=options.seed,
    )


def read_problems(path: Path, *, limit: int | None = None) -> list[Problem]:
    """The problems of a file of JSON lines. Raises DataError naming the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    problems = list(islice(_problems(lines, str(path)), limit))
    if not problems:
        raise DataError(f"{path} holds no problem")
    return problems


def _problems(lines: Sequence[str], where: str) -> Iterator[Problem]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt = read_conversation(row["prompt"], role="user")
            if "reference" not in row and row.get("answer") is not None:
                row = {**row, "reference": row["answer"]}
            facts = prompt_facts(row)
        except (ValueError, KeyError, TypeError, DataError) as error:
            raise DataError(
                f"{where}, line {number}: no object with a prompt ({type(error).__name__}: {error})"
            ) from error
        nothing = Completion((Message("assistant", ""),))
        yield Problem(str(row.get("id", number)), Candidates(prompt, (nothing,), **facts))


def generator_config(name: str) -> GeneratorConfig:
    """The table [generator] of a TOML, or the local model in a folder."""
    if name.endswith(".toml"):
        table = read_toml(Path(name))
        return build(GeneratorConfig, table.get("generator", table), where=name)
    if not Path(name).is_dir():
        raise UsageError(f"--generator takes a TOML with the table [generator] or the folder of a model, got {name!r}")
    return GeneratorConfig(model=name, backend="local")


class Searches:
    """An open engine and a model; `each` runs work over problems, several at a time, results in their order."""

    def __init__(self, config: GeneratorConfig, model: RewardModel | None, *, workers: int, purpose: str) -> None:
        self._ledger: Ledger = open_ledger()
        self.engine = Engine(open_generator(config), ledger=self._ledger, purpose=purpose, limits=config.limits)
        self.model = model
        self._workers = workers

    def scorer(self, problem: Problem) -> Scorer | None:
        return None if self.model is None else ModelScorer(self.model, problem.item)

    def each(self, work: Callable[[Problem], Result], problems: Sequence[Problem]) -> Iterator[Result]:
        with ThreadPoolExecutor(self._workers) as pool:
            yield from pool.map(work, problems)

    def __enter__(self) -> Searches:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()
        self._ledger.close()


def verified(verifier: RewardModel, problem: Problem, texts: Sequence[str]) -> list[float]:
    """[N] what the verifier says of each text, NaN where it cannot say."""
    if not texts:
        return []
    completions = [Completion((Message("assistant", text),)) for text in texts]
    [scores] = verifier.score([replace(problem.item, completions=tuple(completions))])
    return [score.value for score in scores]
