# ruff: noqa: E402
"""The home of test_former_home: run with PYTHONPATH on a checkout of revision ce88849, a new FOLDER as argument.

All text is generated. `facts.json` holds what that code says about its home: digests, rows, scores, judgments.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

folder = Path(sys.argv[1]).resolve()
folder.mkdir(parents=True)
os.environ["RMKIT_HOME"] = str(folder / "home")
os.chdir(folder)

from labeling_ui.answers import Answer
from labeling_ui.people import add_person, by_name
from labeling_ui.project import open_project
from warehouse.checkout import checkout

from data_pipelines import sample
from rmkit import cli
from rmkit.ledger import open_ledger
from rmkit.models import load_model
from rmkit.types import Candidates, Completion, Message
from warehouse.store import open_warehouse
from warehouse.versions import get, resolve


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def common(name: str, kind: str, prompt: str) -> dict:
    return {"id": name, "source": kind, "prompt": say(prompt), "meta": {"label_type": "human"}}


def forms() -> dict[str, list[dict]]:
    rng = random.Random(5)

    def talk(topic: str) -> str:
        return sample.talk(rng, topic, sentences=2)

    topics = list(sample.TOPICS)
    pairs = [
        common(f"pair-{n}", "pairs", f"One fact about {topic}, number {n}?")
        | {"chosen": talk(topic), "rejected": talk(topic)}
        for n, topic in enumerate(topics[:12])
    ]
    twisted = [row | {"chosen": row["rejected"], "rejected": row["chosen"], "source": "twisted"} for row in pairs]
    steps = [
        common(f"steps-{n}", "steps", f"Compute {n} + {n} and double it.")
        | {"steps": [f"{n} + {n} = {2 * n}", f"twice that is {4 * n + n % 2}"], "labels": [1, 1 - n % 2]}
        for n in range(6)
    ]
    nway = [
        common(f"list-{n}", "nway", f"Three tips on {topic}?")
        | {
            "responses": [
                {"text": talk(topic), "model": f"m{k}", "score": (n * 7 + k * 5) % 11 + k / 10} for k in range(3)
            ]
        }
        for n, topic in enumerate(topics[12:20])
    ]
    rubrics = [
        common(f"rubric-{n}", "rubrics", f"Write about {topic}.")
        | {
            "rubric": [
                {"criterion": f"names the {word}", "weight": 1 + k}
                for k, word in enumerate(sample.TOPICS[topic].split()[:2])
            ]
        }
        for n, topic in enumerate(topics[20:24])
    ]
    edits = [
        common(f"edit-{n}", "edits", f"A line on {topic}, please.")
        | {"original": f"{topic} is nice", "edited": f"{topic} is a fine hobby."}
        for n, topic in enumerate(topics[24:28])
    ]
    return {"pairs": pairs, "twisted": twisted, "steps": steps, "nway": nway, "rubrics": rubrics, "edits": edits}


def run(*words: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = cli.call(words[0], words[1:])
    assert status in (0, 1), (words, status)
    print("rmkit", *words, "->", status, file=sys.stderr)
    return out.getvalue()


sample.write(
    folder / "in", sample.SampleConfig(pairs=620, exact_duplicates=6, near_duplicates=4, leaked=3, benchmark_pairs=16)
)
run("ingest", "in/sample_bench.jsonl", "--benchmark", "--name", "bench")
run("ingest", "in/sample.jsonl", "--name", "votes")
for name, rows in forms().items():
    path = folder / "in" / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("ingest", f"in/{name}.jsonl", "--name", name)
run("run", "clean", "--data", "votes")
run("run", "clean", "--data", "twisted")
run("tag", "votes@v2", "golden")
run("export", "votes@v2")
run("export", "steps")
run("export", "steps", "--format", "jsonl", "-o", "home/exports/steps-jsonl")
run("train", "lexical", "--data", "votes@v2", "-o", "home/models/tiny")
run("calibrate", "tiny", "--data", "votes@v2", "--method", "temperature")
run("normalise", "tiny", "--data", "votes@v2", "--clip", "3")
run("eval", "tiny", "length", "--data", "votes@v2", "-o", "home/eval.json")
run("models", "promote", "tiny", "tiny@prod", "--force", "the first one")
run("label", "create", "study", "--data", "pairs")
with open_ledger() as ledger:
    add_person(ledger, "ana", role="annotator")
    ana = by_name(ledger, "ana")
    project = open_project(ledger, "study")
    desk = project.desk(ledger)
    desk.task = replace(project.task, quiz=())
    for turn in range(7):
        [hold] = desk.open(ana)
        answer = Answer(better=None) if turn == 3 else Answer(better=turn % 2, strength=1)
        desk.submit(ana, hold.key, answer, active_ms=1200, wall_ms=2000)
    desk.undo(ana, desk.history(ana, limit=1)[0].key)
run("label", "commit", "study")
run("sync")
run("backup", "home/backups/first")

facts: dict = {"revision": "ce88849", "versions": {}, "rows": {}, "steps": {}}
with open_warehouse(read_only=True) as connection:
    refs = connection.execute(
        "SELECT d.name || '@v' || number FROM version JOIN dataset d USING (dataset_id) ORDER BY version_id"
    ).fetchall()
    for (ref,) in refs:
        version_id = resolve(connection, ref)
        version = get(connection, version_id)
        facts["versions"][ref] = {"digest": version.digest, "n_rows": version.n_rows}
        names = ("id", "unit", "kind", "n_votes", "p", "ranks", "step_ends", "step_labels", "split", "weight")
        rows = checkout(connection, version_id, columns=names).to_pylist()
        facts["steps"] |= {row["id"]: row["step_ends"] for row in rows if row["step_ends"]}
        told = json.dumps([[row[name] for name in names if name != "step_ends"] for row in rows])
        facts["rows"][ref] = hashlib.sha256(told.encode()).hexdigest()
    facts["n_judgments"] = connection.execute("SELECT count(*) FROM judgment").fetchall()[0][0]
model = load_model("home/models/tiny")
items = [
    Candidates(
        (Message("user", row["prompt"][0]["content"]),),
        tuple(Completion((Message("assistant", row[side]),)) for side in ("chosen", "rejected")),
    )
    for row in forms()["pairs"]
]
facts["fingerprint"] = model.info.fingerprint
facts["scores"] = [[score.value for score in row] for row in model.score(items)]
facts["normalized"] = [[getattr(score, "normalised", None) for score in row] for row in model.score(items)]
facts["p_first"] = [one.p_first for one in model.compare(items)]
facts["texts"] = [[item.prompt[0].content, *(c.text for c in item.completions)] for item in items]
facts["answered"] = 6  # seven answers, one taken back
facts["exports"] = {"steps": f"steps-v1-{facts['versions']['steps@v1']['digest'][:8]}"}
(folder / "facts.json").write_text(json.dumps(facts))
shutil.rmtree(folder / "in")
