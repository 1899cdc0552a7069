"""Importers: one function a row form, from a parsed row to units, and how to tell which form a file has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from data_pipelines.sources import (
    argilla,
    generic,
    helpsteer,
    hh,
    label_studio,
    native,
    native_feedback,
    nectar,
    prm800k,
    published_rubrics,
    shp,
    trl,
    ultrafeedback,
    webgpt,
)
from data_pipelines.sources.unit_builder import Row, Unit
from rmkit.errors import DataError, UsageError


class Source(NamedTuple):
    """`matches` looks at one row's columns, `units` turns a row into units or raises UnusableRowError."""

    name: str
    about: str
    matches: Callable[[Row], bool]
    units: Callable[[Row], Iterator[Unit]]


# The more telling forms come first: of the forms that know most rows of a sample, the first is taken.
SOURCES = (
    Source("pairs", "id, source, prompt, chosen, rejected, meta", native.is_pair, native.pairs),
    Source("annotators", "id, source, prompt, response_a, response_b, labels, meta", native.is_votes, native.votes),
    Source("nway", "id, source, prompt, responses, meta", native.is_list, native.lists),
    Source("steps", "id, source, prompt, steps, labels, meta", native.is_steps, native.steps),
    Source("rubrics", "id, source, prompt, rubric, meta", native_feedback.is_rubric, native_feedback.rubrics),
    Source(
        "edits", "id, source, prompt, original, edited or edits, meta", native_feedback.is_edit, native_feedback.edits
    ),
    Source("talks", "id, source, messages with thumbs, meta", native_feedback.is_talk, native_feedback.talks),
    Source(
        "answers",
        "id, source, prompt, response, labels or critique, meta",
        native_feedback.is_answer,
        native_feedback.answers,
    ),
    Source("hh", "HH-RLHF: chosen and rejected transcripts", hh.is_pair, hh.pairs),
    Source("hh-red-team", "HH-RLHF red-team attempts: transcript, rating", hh.is_red_team, hh.red_team),
    Source("ultrafeedback", "instruction, completions", ultrafeedback.is_original, ultrafeedback.original),
    Source(
        "ultrafeedback-binarized",
        "prompt, chosen, rejected, score_chosen or chosen-rating",
        ultrafeedback.is_binarized,
        ultrafeedback.binarized,
    ),
    Source(
        "ultrafeedback-argilla",
        "instruction, chosen_response, rejected_response",
        ultrafeedback.is_argilla_binarized,
        ultrafeedback.argilla_binarized,
    ),
    Source("helpsteer", "prompt, response and five attributes", helpsteer.is_ratings, helpsteer.ratings),
    Source(
        "helpsteer2-preference",
        "prompt, response_1, response_2, preference_strength",
        helpsteer.is_preference2,
        helpsteer.preference2,
    ),
    Source(
        "helpsteer3-preference",
        "context, response1, response2, overall_preference",
        helpsteer.is_preference3,
        helpsteer.preference3,
    ),
    Source(
        "helpsteer3-edit-quality",
        "context, original_response, good_edited_response, bad_edited_response",
        helpsteer.is_edit_quality,
        helpsteer.edit_quality,
    ),
    Source("helpsteer3-edit", "context, original_response, edited_response", helpsteer.is_edit, helpsteer.edit),
    Source(
        "helpsteer3-principle", "context, response, principle, fulfilment", helpsteer.is_principle, helpsteer.principle
    ),
    Source("helpsteer3-feedback", "context, response, feedback", helpsteer.is_feedback, helpsteer.feedback),
    Source(
        "published-rubrics",
        "BiGGen-Bench, FLASK, DeepResearch Bench, HealthBench rubrics",
        published_rubrics.matches,
        published_rubrics.units,
    ),
    Source("shp", "history, human_ref_A, human_ref_B, labels", shp.matches, shp.pairs),
    Source("nectar", "prompt, answers with rank and model", nectar.matches, nectar.lists),
    Source("webgpt", "question, answer_0, answer_1, score_0, score_1", webgpt.matches, webgpt.pairs),
    Source("prm800k", "question.problem, label.steps", prm800k.matches, prm800k.steps),
    Source("argilla", "Argilla records, nested or flat", argilla.matches, argilla.records),
    Source("label-studio", "Label Studio tasks: data, annotations", label_studio.matches, label_studio.tasks),
    Source("trl-stepwise", "prompt, completions, labels", trl.is_stepwise, trl.stepwise),
    Source("trl-unpaired", "prompt, completion, label", trl.is_unpaired, trl.unpaired),
    Source("trl", "chosen, rejected, prompt explicit or shared", trl.is_preference, trl.preference),
    Source("generic", "the fields of --map", generic.matches, generic.rows),
)


def find(name: str) -> Source:
    """The source of that name. Raises UsageError for an unknown one."""
    for source in SOURCES:
        if source.name == name:
            return source
    raise UsageError(f"no format {name!r}; the formats are: {', '.join(source.name for source in SOURCES)}")


def detect(rows: Sequence[Row], *, path: object) -> Source:
    """The form that knows most of these rows. Raises DataError where none knows any."""
    counts = [sum(source.matches(row) for row in rows) for source in SOURCES]
    if not max(counts):
        columns = sorted({name for row in rows for name in row})
        raise DataError(
            f"{path}: no known format has the columns {', '.join(columns[:20]) or '(none)'}; "
            f"name one with --format ({', '.join(source.name for source in SOURCES)}) or map the columns, e.g. "
            "--map prompt=COLUMN,chosen=COLUMN,rejected=COLUMN"
        )
    return SOURCES[counts.index(max(counts))]
