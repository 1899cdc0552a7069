"""The small invented files of shared/cases/ingest, one per form that practitioners hold, each with its right
reading.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.data_pipelines.sources.readings import Read, read, text, turns

ROOT = Path(__file__).resolve().parents[4] / "shared" / "cases" / "ingest"
LINES = (ROOT / "expected.jsonl").read_text(encoding="utf-8").splitlines() if ROOT.is_dir() else []
CASES = [json.loads(line) for line in LINES]
KINDS = {"verified": "verifier"}
WITHOUT_TEXTS = "the texts are in another file"
GAMES = {"mtbench_gpt4_pair.jsonl": ("m-a", "m-b"), "arena_hard_judgment.jsonl": ("m-a", "baseline")}
WORDS = {"Bad": 1.0, "Good": 2.0, "Very good": 3.0}


def options_of(case: dict[str, Any]) -> dict[str, Any]:
    """The options of a case as the command takes them."""
    words = shlex.split(
        str(case.get("options", "")).replace("(or told apart)", "").replace("--delimiter ;", "--delimiter ';'")
    )
    result: dict[str, Any] = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        match name:
            case "--map":
                result["roles"] = dict(part.split("=", 1) for part in value.split(","))
            case "--wide":
                result["wide"] = tuple(value.split(","))
            case "--rater":
                result.setdefault("roles", {})
            case "--items":
                pass
            case "--header-rows":
                result["header_rows"] = int(value)
            case _:
                result[name[2:].replace("-", "_")] = value
    return {name: value for name, value in result.items() if value != {}}


def items_for(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An items file with invented texts for judgments whose texts lie elsewhere."""
    rows: list[dict[str, Any]] = []
    for unit in case["expected"]:
        if case["file"] in GAMES:
            rows.append({"question_id": unit["question_id"], "turns": [f"Asked of {unit['question_id']}."]})
            rows += [
                {"question_id": unit["question_id"], "model_id": model, "choices": [{"turns": [label]}]}
                for model, label in zip(GAMES[case["file"]], unit["responses"], strict=True)
            ]
        elif "item" in unit:
            texts = unit["responses"]
            named = {"response": texts[0]} if len(texts) == 1 else {"response_a": texts[0], "response_b": texts[1]}
            rows.append({"item": unit["item"], "prompt": f"Asked of {unit['item']}.", **named})
    if not rows:
        return {}
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"items": (str(path),)} | ({"on": "question_id"} if case["file"] in GAMES else {})


@pytest.mark.skipif(not CASES, reason="no shared/cases")
@pytest.mark.parametrize("case", CASES, ids=[case["file"] for case in CASES])
def test_a_file_is_read_as_expected(case: dict[str, Any], tmp_path: Path) -> None:
    options = options_of(case)
    items = items_for(case, tmp_path)
    if case["file"] == "doccano.jsonl":
        options["split_text"] = "\\n---\\n"
    elif items and case["file"] not in ("qualtrics_wide.csv",):
        assert WITHOUT_TEXTS in "".join(read(ROOT / case["file"], **options).stream.reasons)
    compare(case, read(ROOT / case["file"], **options, **items))


def compare(case: dict[str, Any], result: Read) -> None:
    """Every expected unit, with its judgments, and nothing else."""
    units = result.merged
    expected = [unit for unit in case["expected"] if not _in_later_turns(unit)]
    assert len(units) == len(expected), (result.stream.reasons, [turns(unit["prompt"]) for unit in units])
    for unit, right in zip(_ordered(units, expected), expected, strict=True):
        compare_unit(case, unit, right)


def _in_later_turns(unit: dict[str, Any]) -> bool:
    return any("(user)" in answer for answer in unit["responses"])


def _ordered(units: list[dict[str, Any]], expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The units in the order of what is expected, by their prompts and replies."""
    waiting = list(units)
    result = []
    for right in expected:
        wanted = set(right["responses"]) | {p[1] for p in map(tuple, right["prompt"][-1:])}
        wanted |= {f"Asked of {right[key]}." for key in ("item", "question_id") if key in right}
        wanted |= {"\n\n".join(right["steps"])} if "steps" in right else set()

        def fits(unit: dict[str, Any], wanted: set[str] = wanted) -> int:
            own = {text(answer) for answer in unit["responses"]} | {turns(unit["prompt"])[-1][1]}
            return len(own & wanted)

        best = max(waiting, key=fits)
        waiting.remove(best)
        result.append(best)
    return result


def compare_unit(case: dict[str, Any], unit: dict[str, Any], right: dict[str, Any]) -> None:
    if right["prompt"]:
        spelled = [[role, said] for role, said in turns(unit["prompt"])]
        assert [r for r, _ in spelled] == [r for r, _ in right["prompt"]]
        for (_, said), (_, told) in zip(spelled, right["prompt"], strict=True):
            assert said == told or "(tool call" in told
    texts = [text(answer) for answer in unit["responses"]]
    if case["file"] == "doccano.jsonl":
        right = {**right, "responses": [right["responses"][0].split("\n---\n")[1]]}
    if right["responses"]:
        order = [
            next(at for at, one in enumerate(texts) if one == told or "(tool call" in told)
            for told in right["responses"]
        ]
        if not any("(tool call" in told for told in right["responses"]):
            assert sorted(order) == list(range(len(texts))), texts
        else:
            order = list(range(len(texts)))
    else:
        order = list(range(len(texts)))
    if "steps" in right:
        (answer,) = unit["responses"]
        whole = text(answer)
        ends = answer["step_ends"]
        assert [whole[a:b].strip() for a, b in zip([0, *ends], ends, strict=False)] == right["steps"]
    if "reference" in right:
        assert unit["reference"] == right["reference"]
    if "tools" in right:
        assert len(json.loads(unit["tools"])) == right["tools"]
    if "rubric" in right:
        criteria = json.loads(unit["rubric"])
        told = [(one, 1) if isinstance(one, str) else tuple(one) for one in right["rubric"]]
        assert [(one["criterion"], one.get("weight", 1)) for one in criteria] == told
    judgments = list(right["judgments"])
    needed = [one for one in judgments if not one.get("optional") and _has_opinion(one)]
    own = unit["judgments"]
    assert len(needed) <= len(own) <= len(judgments), own
    waiting = list(own)
    for told in needed:
        fitting = [one for one in waiting if not _differences(one, told, order)]
        assert fitting, (told, [_differences(one, told, order) for one in waiting])
        waiting.remove(fitting[0])


def _has_opinion(judgment: dict[str, Any]) -> bool:
    values = [value for row in judgment.get("scores", {}).values() for value in row]
    return (
        "winner" in judgment or "ranks" in judgment or any(value is not None for value in values) or "edit" in judgment
    )


def _differences(own: dict[str, Any], told: dict[str, Any], order: list[int]) -> list[str]:
    """What a judgment says otherwise than it should."""
    result = []
    ranks = own["ranks"] and [own["ranks"][at] for at in order]
    if "winner" in told and told.get("aspect", "helpfulness") in ("helpfulness", "overall"):
        right = [0, 0] if told["winner"] == "tie" else [int(at != told["winner"]) for at in (0, 1)]
        result += [] if ranks == right else [f"ranks {ranks}"]
    if "ranks" in told and ranks != told["ranks"]:
        result.append(f"ranks {ranks}")
    if (
        "winner" not in told
        and "ranks" not in told
        and any(None in row for row in told.get("scores", {}).values())
        and ranks
    ):
        result.append(f"ranks {ranks} where there are none")
    if "rater" in told and own["rater"] != told["rater"]:
        result.append(f"rater {own['rater']}")
    if "rater_kind" in told and own["rater_kind"] != KINDS.get(told["rater_kind"], told["rater_kind"]):
        result.append(f"kind {own['rater_kind']}")
    if "strength" in told and (own["strength"] is None or abs(own["strength"] - told["strength"]) > 1e-9):
        result.append(f"strength {own['strength']}")
    if "rationale" in told and told["rationale"] not in (own["rationale"] or ""):
        result.append(f"rationale {own['rationale']}")
    if "edit" in told and (not own["edit"] or turns(own["edit"])[-1][1] != told["edit"]):
        result.append(f"edit {own['edit']}")
    for aspect, values in told.get("scores", {}).items():
        if aspect == "steps":
            result += (
                [] if own["step_labels"] == [float(value) for value in values] else [f"steps {own['step_labels']}"]
            )
            continue
        if values and isinstance(values[0], str) and aspect == "label":
            named = {one["aspect"] for one in own["scores"] or []}
            result += [] if named == set(values) else [f"classes {named}"]
            continue
        names = {aspect, "desirable" if aspect == "label" else aspect}
        stored = {one["response"]: one["value"] for one in own["scores"] or [] if one["aspect"] in names}
        right = [WORDS.get(value, value) if isinstance(value, str) else value for value in values]
        result += [] if [stored.get(at) for at in order] == right else [f"{aspect} {stored}"]
    return result
