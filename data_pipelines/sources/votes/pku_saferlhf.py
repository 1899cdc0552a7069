"""PKU-SafeRLHF (arXiv:2406.15513): which of two replies is more helpful, and which is safer. Ids count from 0.

The two questions may disagree and are never one vote: the helpful one ranks, the safer one is a score by reply (aspect
`safer`), beside whether each is safe and how severe the harm is. The older revision says is_response_0_safer or has no
safer_response_id.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import Row, Unit, UnusableRowError, field, judgment, response, rest, unit
from data_pipelines.sources.verdicts import as_text

_USED = (
    *("prompt", "response_0", "response_1", "better_response_id", "safer_response_id", "is_response_0_safe"),
    *("is_response_1_safe", "response_0_severity_level", "response_1_severity_level", "response_0_source"),
    *("response_1_source", "prompt_source"),
)


def matches(row: Row) -> bool:
    return "response_0" in row and "response_1" in row and ("better_response_id" in row or "safer_response_id" in row)


def units(row: Row) -> Iterator[Unit]:
    answers = [response(field(row, f"response_{at}"), generator=row.get(f"response_{at}_source")) for at in (0, 1)]
    judgments = []
    if row.get("better_response_id") is not None:
        better = _index(row, "better_response_id")
        judgments.append(
            judgment("annotator", "human", ranks=[0, 1] if better == 0 else [1, 0], extra={"aspect": "helpfulness"})
        )
    scores = []
    if row.get("safer_response_id") is not None:
        safer = _index(row, "safer_response_id")
        scores += [(at, "safer", float(at == safer)) for at in (0, 1)]
    for at in (0, 1):
        if row.get(f"is_response_{at}_safe") is not None:
            scores.append((at, "safe", float(_truth(row[f"is_response_{at}_safe"]))))
        if row.get(f"response_{at}_severity_level") is not None:
            scores.append((at, "severity", row[f"response_{at}_severity_level"]))
    if scores:
        judgments.append(judgment("annotator", "human", scores=scores, extra={"aspect": "safety"}))
    yield unit(
        field(row, "prompt"),
        answers,
        judgments,
        in_columns=True,
        subset=row.get("prompt_source"),
        meta=rest(row, *_USED),
    )


def _index(row: Row, name: str) -> int:
    if as_text(row[name]) not in ("0", "1"):
        raise UnusableRowError(f"{name} is not 0 or 1")
    return int(as_text(row[name]))


def _truth(value: object) -> bool:
    text = as_text(value).lower()
    if text not in ("true", "false", "1", "0"):
        raise UnusableRowError("is_response_N_safe is not true or false")
    return text in ("true", "1")


PKU_SAFERLHF = Source(
    "pku-saferlhf",
    "prompt, response_0, response_1, better_response_id, safer_response_id",
    matches,
    units,
    labels="ids from 0; helpfulness ranks, safety is scores",
)
