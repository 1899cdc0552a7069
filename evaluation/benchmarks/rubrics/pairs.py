"""`rmkit bench rubric-pairs FILE`: contrastive rubrics from real pairs by a user's commands, killed and resumed.

A home of its own, and an endpoint in this process that plays writer and judge. The writer reads the two responses and
names the number of words that tells the better from the worse, or on a share of the pairs (`--noise`) the opposite;
where both are as long nothing it says is true. The judge runs any rule it is given. So it is known in advance which
rubrics the consistency filter must drop. How well a language model writes rubrics is not measured here.

    rmkit ingest FILE; rmkit rubrics generate (killed again and again); rmkit ingest out/rubrics.jsonl
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.benchmarks.judging.page import write_section
from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from evaluation.benchmarks.kill_resume import kill_and_resume
from evaluation.benchmarks.rubrics import filter as rubric_filter
from rmkit.cli import arguments, display
from rmkit.data.export_folder import examples_of
from rmkit.generate import Request
from rmkit.generate.call_cache import KIND
from rmkit.ids import content_hash
from rmkit.judge.prompt_delimiters import harmless
from rmkit.judge.tally import judging_lines
from rmkit.ledger import open_ledger
from rmkit.types import Message
from rubrics.command import instances_of

ABOUT = (
    "Real pairs through `rmkit ingest`, `rmkit rubrics generate` and `rmkit ingest` of the rubrics kept. A scripted\n"
    "writer names the word count that separates a pair, or on a known share the opposite; a scripted judge runs the\n"
    "rule. The command is killed (SIGKILL) and started again; a stored answer asked for again would be paid twice."
)
LATENCY_S = 0.02
MODEL = "scripted"
KINDS = {"right": "the rule is right", "wrong": "it says the opposite", "equal": "responses as long"}
KILLED = (
    "kills",
    "calls_needed",
    "calls_made",
    "asked_again_after_loss_in_flight",
    "stored_answers_paid_again",
)


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench rubric-pairs",
        "Contrastive rubrics from real pairs with a scripted writer and judge, killed and resumed.",
        examples=["bench rubric-pairs pairs_hh_helpful.jsonl.gz", "bench rubric-pairs FILE --limit 200 --kills 2"],
    )
    parser.add_argument("pairs", type=Path, help="a file of pairs that `rmkit ingest` reads")
    parser.add_limit(1000, help="pairs")
    parser.add_argument("--noise", type=float, default=0.3, help="share of rubrics that say the opposite")
    parser.add_argument("--kills", type=int, default=5, help="(default 5)")
    parser.add_page(help="write its section of the results page there")
    options = parser.parse_args(argv)
    result = run(options.pairs, limit=options.limit, noise=options.noise, kills=options.kills)
    if options.page:
        named = [Path(one).name if one == str(options.pairs) else one for one in argv]
        write_section(options.page, name="rubric-pairs", about=ABOUT, argv=named, text=_text(result))
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def run(pairs: Path, *, limit: int, noise: float, kills: int) -> dict[str, object]:
    """What the commands reported, how the filter did against what was planted, and what the kills cost."""
    requests: Counter[str] = Counter()

    def script(body: dict[str, Any]) -> Reply:
        requests[_key(body, f"{MODEL} at {endpoint.base_url}")] += 1
        text = body["messages"][-1]["content"]
        reply = _rubric(*_words(text), noise) if "Work in three stages" in text else rubric_filter.judge(text, 0)
        return Reply(text=reply, delay_s=LATENCY_S, prompt_tokens=len(text) // 4, completion_tokens=12)

    with tempfile.TemporaryDirectory() as name, ScriptedEndpoint(script, keep=False) as endpoint:
        folder = Path(name)
        environment = {**os.environ, "RMKIT_HOME": str(folder / "home")}
        environment.pop("RMKIT_LEDGER", None)
        (folder / "judge.toml").write_text(_toml(endpoint.base_url))
        _rmkit(["ingest", str(pairs), "--name", "pairs"], environment)
        _rmkit(["export", "pairs", "-o", str(folder / "export")], environment)
        command = ["rubrics", "generate", str(folder / "judge.toml"), "pairs", "-o", str(folder / "out")]
        killed, printed = kill_and_resume(
            [sys.executable, "-m", "rmkit", *command, "--limit", str(limit), "--json"],
            requests,
            lambda: _stored(folder / "home"),
            kills=kills,
            environment=environment,
        )
        stored = _rmkit(["ingest", str(folder / "out" / "rubrics.jsonl"), "--name", "rubrics"], environment)
        truth = _planted(folder / "export", noise)
        outcomes = [json.loads(line) for line in (folder / "out" / "audit.jsonl").read_text().splitlines()]
    report = json.loads(printed.splitlines()[-1])
    counts = Counter((truth[result["id"]], result["dropped"] is None) for result in outcomes)
    return {
        "pairs": pairs.name,
        "report": {key: value for key, value in report.items() if key != "folder"},
        "planted": {kind: {"kept": counts[kind, True], "dropped": counts[kind, False]} for kind in KINDS},
        "rubrics_in_warehouse": stored["files"][0]["new_units"],
        **killed,
    }


def _key(body: Mapping[str, Any], name: str) -> str:
    """The request's key in the ledger."""
    prompt = tuple(Message(one["role"], one["content"]) for one in body["messages"])
    return Request(prompt=prompt, max_tokens=body["max_tokens"], temperature=body["temperature"]).key(name)


def _stored(home: Path) -> set[str]:
    if not home.exists():
        return set()
    with open_ledger(home / "ledger.sqlite") as ledger:
        return {record.key for record in ledger.records(KIND)}


def _words(requests: str) -> tuple[int, int]:
    """Words of the better and of the worse response in the writer's prompt, where the best stands first."""
    better, worse = re.findall(r"(?s)<response-\w (\w+)>\n(.*?)\n</response-\w \1>", requests)
    return len(better[1].split()), len(worse[1].split())


def _rubric(better: int, worse: int, noise: float) -> str:
    """One hard rule that tells the two apart, or says the opposite."""
    shorter = (better < worse) != (_kind(better, worse, noise) == "wrong")
    bound = f"at most {min(better, worse)}" if shorter else f"at least {max(better, worse)}"
    return f"1. The response has {bound} words. [hard rule]"


def _kind(better: int, worse: int, noise: float) -> str:
    if better == worse:
        return "equal"
    return "wrong" if int(content_hash(f"{better} {worse}")[:8], 16) < noise * 16**8 else "right"


def _planted(export: Path, noise: float) -> dict[str, str]:
    """Instance -> what its rubric was planted as."""
    by_key = {}
    for instance in instances_of(examples_of(export, "all")):
        better, worse = (len(harmless(one.text).split()) for one in instance.candidates.completions)
        by_key[instance.id] = _kind(better, worse, noise)
    return by_key


def _toml(base_url: str) -> str:
    tables = '[judge]\nname = "rules"\nverdict = "parse"\n'
    return tables + "".join(
        f'[{table}]\nmodel = "{MODEL}"\nbase_url = "{base_url}"\nprompt_price = 1.0\ncompletion_price = 4.0\n'
        for table in ("generator", "writer")
    )


def _rmkit(argv: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "rmkit", *argv, "--json"], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def _text(result: Mapping[str, Any]) -> str:
    report = result["report"]
    lines = [
        f"{result['pairs']}: {report['instances']} pairs, {report['kept']} rubrics kept and in the warehouse "
        f"({result['rubrics_in_warehouse']} rows, equal ones once); the judge agreed with {report['judged']} labels in "
        f"{100 * report['consistency']:.1f}%",
        "",
        f"{'planted':<24}{'kept':>6}{'dropped':>9}",
        *(f"{KINDS[kind]:<24}{one['kept']:>6}{one['dropped']:>9}" for kind, one in result["planted"].items()),
        "",
        *(f"{name.replace('_', ' '):<34}{result[name]:>6}" for name in KILLED),
        "",
        *judging_lines(report),
    ]
    return "\n".join(lines)
