"""The two turns of alternating training of a rubric writer and a judge (Rubric-ARM), as steps of recipes.

    ask_judge      rows of pairs become what the judge is asked about them, under the rubric that the writer gives the
                   prompt, greedily; the reference is the letter of the better response, which slot is drawn by the row
    ask_writer     rows of pairs become what the writer is asked; the reference is the pair, better response first
    rubric_reward  a writer's answers as scores: -1 for what is no rubric (the format reward), else the share of both
                   orders in which the judge, greedily, decides the pair under it as the label does

The judge's answers are scored by the verifier `verdict`. Sampling and training are `generate` and `train_policy`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import polars as pl

from data_pipelines.algorithms.responses import result_of
from data_pipelines.loops.replies import sampled_replies
from data_pipelines.steps import Context, StepResult
from rmkit.data.example import Example
from rmkit.generate import Request
from rmkit.generate.config import GeneratorConfig, open_generator
from rmkit.ids import messages_json, parse_messages
from rmkit.judge.prompt_file import BUILT_IN, FOLDER, PromptFile, Shown
from rmkit.ledger import open_ledger
from rmkit.types import Completion, Conversation
from rmkit.verifiers.verdict import verdict_of
from rubrics.rubric_rm import RUBRIC_TOKENS, WRITER_PROMPT
from rubrics.validate import parse_reply, rubric_text

ASPECT = "rubric_reward"
SETTINGS = {"lowest": 1, "highest": 10, "ties": False}
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """`generator` is a table as in a judge's TOML."""

    generator: Annotated[GeneratorConfig, "who is asked"]
    max_tokens: Annotated[int, "of an answer"] = RUBRIC_TOKENS


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No settings."""


class AskJudge:
    """See the file's docstring."""

    Config = Asked

    @staticmethod
    def step(frame: pl.DataFrame, config: Asked, context: Context) -> StepResult:
        rows, dropped = _pairs(frame)
        prompts = [Example(row).candidates.prompt for row in rows]
        answers = _answers([writer_request(prompt) for prompt in prompts], config)
        questions = []
        for row, prompt, answer in zip(rows, prompts, answers, strict=True):
            rubric = _rubric(answer)
            if rubric is None:
                dropped.append((row["id"], "the writer gave no rubric", None))
                continue
            better, worse = _ordered(row)
            first = hashlib.sha256(f"turn {row['id']}".encode()).digest()[0] % 2 == 0
            question = judge_request(prompt, (better, worse) if first else (worse, better), rubric)
            questions.append(_as_question(row, question, reference="A" if first else "B"))
        return result_of(frame, questions, dropped, {"asked": len(questions)})


class AskWriter:
    """See the file's docstring."""

    Config = Nothing

    @staticmethod
    def step(frame: pl.DataFrame, config: Nothing, context: Context) -> StepResult:
        rows, dropped = _pairs(frame)
        questions = []
        for row in rows:
            prompt = Example(row).candidates.prompt
            pair = {"prompt": row["prompt"], "responses": [messages_json(one.messages) for one in _ordered(row)]}
            questions.append(_as_question(row, writer_request(prompt), reference=json.dumps(pair, ensure_ascii=False)))
        return result_of(frame, questions, dropped, {"asked": len(questions)})


class RubricReward:
    """See the file's docstring."""

    Config = Asked

    @staticmethod
    def step(frame: pl.DataFrame, config: Asked, context: Context) -> StepResult:
        rows = frame.to_dicts()
        questions: list[Conversation] = []
        places: list[tuple[int, int, str]] = []  # row, response, the right letter
        values = [[-1.0] * len(row["responses"] or ()) for row in rows]
        for at, row in enumerate(rows):
            pair = json.loads(row["reference"])
            prompt = parse_messages(pair["prompt"])
            better, worse = (Completion(parse_messages(text)) for text in pair["responses"])
            for spot, answer in enumerate(Example(row).candidates.completions):
                rubric = _rubric(answer.text)
                if rubric is not None:
                    values[at][spot] = 0.0
                    for order, letter in (((better, worse), "A"), ((worse, better), "B")):
                        questions.append(judge_request(prompt, order, rubric))
                        places.append((at, spot, letter))
        for (at, spot, letter), verdict in zip(places, _answers(questions, config), strict=True):
            values[at][spot] += 0.5 * (verdict_of(verdict or "") == letter)
        scored = [row | {"scores": _scores(own)} for row, own in zip(rows, values, strict=True)]
        everything = [value for own in values for value in own]
        facts: dict[str, float] = {"rubrics": len(everything), "unreadable": sum(value < 0 for value in everything)}
        facts["mean"] = round(sum(everything) / max(len(everything), 1), 6)
        return result_of(frame, scored, [], facts)


def _scores(values: Sequence[float]) -> list[Mapping[str, object]]:
    return [{"response": at, "aspect": ASPECT, "value": value} for at, value in enumerate(values)]


def _pairs(frame: pl.DataFrame) -> tuple[list[Row], list[tuple[str, str, str | None]]]:
    """Rows of two responses with a winner, one a prompt; and the others with the reason."""
    rows: list[Row] = []
    dropped: list[tuple[str, str, str | None]] = []
    seen: set[str] = set()
    for row in frame.to_dicts():
        p = row["p"] or []
        if len(row["responses"] or ()) != 2 or len(p) != 2 or p[0] == p[1]:
            dropped.append((row["id"], "no pair with a winner", None))
        elif row["prompt"] in seen:
            dropped.append((row["id"], "its prompt is another row's, too", None))
        else:
            seen.add(row["prompt"])
            rows.append(row)
    return rows, dropped


def _ordered(row: Row) -> tuple[Completion, Completion]:
    first, second = Example(row).candidates.completions
    return (first, second) if row["p"][0] > row["p"][1] else (second, first)


def _as_question(row: Row, question: Conversation, *, reference: str) -> Row:
    """The row with another prompt and no label; its responses stay until answers take their place."""
    label: Row = {"p": None, "ranks": None, "margin": None, "scores": None, "votes": [], "rubric": None}
    return row | label | {"prompt": messages_json(question), "reference": reference}


def writer_request(prompt: Conversation) -> Conversation:
    """What a writer is asked for the rubric of a prompt."""
    return PromptFile(WRITER_PROMPT).render(prompt, Shown(responses=()), settings={})


def judge_request(prompt: Conversation, pair: Sequence[Completion], rubric: str) -> Conversation:
    """What a judge is asked about two responses in this order."""
    template = PromptFile(FOLDER / BUILT_IN["pairwise"])
    return template.render(prompt, Shown(responses=tuple(pair), rubric=rubric), settings=SETTINGS)


def _rubric(answer: str | None) -> str | None:
    criteria, problems = parse_reply(answer or "")
    return rubric_text(criteria) if criteria and not problems else None


def _answers(questions: Sequence[Conversation], config: Asked) -> list[str | None]:
    """One greedy answer each, None where it failed; the same question is asked once."""
    requests = [Request(prompt=question, max_tokens=config.max_tokens, temperature=0.0) for question in questions]
    with open_ledger() as ledger:
        replies = sampled_replies(
            open_generator(config.generator),
            requests,
            1,
            ledger=ledger,
            purpose="rubric turns",
            limits=config.generator.limits,
        )
    return [one.texts[0] if one.texts else None for one in replies]
