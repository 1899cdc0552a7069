"""Names under which files keep what a row is about: the words that inference goes by."""

from __future__ import annotations

import re
from collections.abc import Mapping

PROMPTS = (
    *(
        "prompt",
        "instruction",
        "question",
        "query",
        "input",
        "request",
        "task",
        "problem",
        "post",
        "history",
        "context",
    ),
    *(
        "conversation",
        "chat_history",
        "messages",
        "user_prompt",
        "user_input",
        "user_message",
        "user",
        "q",
        "x",
        "text",
    ),
)
CONTEXTS = ("context", "passage", "document", "documents", "background", "article", "source_text", "input")
BETTER = (
    *(("chosen", "rejected"), ("chosen", "reject"), ("accepted", "rejected"), ("better", "worse"), ("best", "worst")),
    *(("preferred", "rejected"), ("preferred", "dispreferred"), ("preferred", "nonpreferred"), ("winner", "loser")),
    *(
        ("winning", "losing"),
        ("win", "lose"),
        ("win", "loss"),
        ("good", "bad"),
        ("positive", "negative"),
        ("pos", "neg"),
    ),
)
SIDES = (("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"), ("one", "two"), ("i", "ii"))
NO_REPLY = re.compile(
    r"model|generator|author|source|score|rating|time|date|length|len|tokens?|count|lang|language|idx|index|hash|rank|"
    r"url|name|user|worker|annotator|rater|conf|confidence|safe|severity|category|win|logprobs?|ids?|sha256|latency"
)
REPLIES = ("response", "answer", "completion", "output", "reply", "generation", "assistant", "summary", "model_output")
LABELS = (
    *("preference", "winner", "label", "choice", "verdict", "vote", "preferred", "better", "judgment", "judgement"),
    *(
        "overall_preference",
        "pick",
        "selected",
        "selection",
        "decision",
        "best",
        "gt_label",
        "result",
        "human_preference",
    ),
)
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "rater": (
        *(
            "rater",
            "rater_id",
            "annotator",
            "annotator_id",
            "annotatorid",
            "worker",
            "worker_id",
            "workerid",
            "labeler",
        ),
        *("labeller", "labeler_id", "evaluator", "evaluator_id", "judge", "judge_model", "judge_id", "who", "reviewer"),
        *("user_id", "userid", "participant", "participant_id", "prolific_pid", "coder", "grader", "assessor", "by"),
    ),
    "rater_kind": ("rater_kind", "annotator_kind", "rater_type", "annotator_type"),
    "rationale": (
        *("rationale", "reason", "why", "explanation", "justification", "comment", "comments", "critique", "reasoning"),
        *("feedback", "note", "notes", "remark", "remarks"),
    ),
    "margin": ("margin", "strength", "preference_strength"),
    "chosen_model": ("chosen_model", "chosen-model", "model_chosen", "chosen_model_id"),
    "rejected_model": ("rejected_model", "rejected-model", "model_rejected", "rejected_model_id"),
    "model_a": ("model_a", "model_1", "model1", "generator_1", "modela", "generator_a"),
    "model_b": ("model_b", "model_2", "model2", "generator_2", "modelb", "generator_b"),
    "models": ("models",),
    "model": ("model", "model_name", "generator", "response_model"),
    "score_chosen": ("chosen_score", "score_chosen", "chosen_rating", "rating_chosen", "chosen-rating"),
    "score_rejected": ("rejected_score", "score_rejected", "rejected_rating", "rating_rejected", "rejected-rating"),
    "time": (
        "timestamp",
        "time",
        "created_at",
        "submitted_at",
        "submitted",
        "annotated_at",
        "tstamp",
        "ts",
        "datetime",
        "date",
        "answered_at",
    ),
    "duration": ("duration", "duration_s", "secs", "time_spent", "lead_time", "seconds", "elapsed"),
    "confidence": ("confidence", "certainty"),
    "language": ("language", "lang"),
    "shown_order": ("shown_order",),
    "reference": ("reference", "reference_answer", "gold", "gold_answer", "ground_truth"),
    "rubric": ("rubric", "rubrics"),
    "tools": ("tools",),
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "id": ("id",),
    "subset": ("subset",),
    "split": ("split",),
    "license": ("license",),
}


def is_extra(name: str) -> bool:
    """Whether a column is named for a role besides the texts and their label."""
    return any(name.lower() in spellings for spellings in EXTRAS.values())


def tokens(name: str) -> list[str]:
    """The words and numbers of a name: answerB_2 is answer, b, 2."""
    name = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return re.findall(r"[a-z]+|\d+", name.lower())
