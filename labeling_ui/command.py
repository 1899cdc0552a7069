"""`rmkit label`: make projects and accounts, serve the studio, take its labels into the warehouse."""

from __future__ import annotations

import argparse
import getpass
from typing import Any, get_args

from labeling_ui.projects.definition import Strategy, read_definition, shipped
from labeling_ui.projects.people import Person, add_person, people, remove_person
from labeling_ui.projects.project import add_queued, create_project, open_project, projects
from rmkit.cli import display as console
from rmkit.ledger import Ledger, open_ledger


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    with open_ledger(read_only=_only_reads(options)) as ledger:
        if options.demo:
            from labeling_ui.projects.demo import make_demo

            make_demo(ledger)
            return _serve(ledger, _parser().parse_args(["serve"]))
        match options.verb:
            case "serve":
                return _serve(ledger, options)
            case "create":
                return _create(ledger, options)
            case "add":
                return _add(ledger, options)
            case "prioritize":
                return _prioritize(ledger, options)
            case "commit":
                return _commit(ledger, options)
            case "people":
                return _people(ledger, options)
        return _list(ledger, options)


def _only_reads(options: Any) -> bool:
    return not options.demo and (options.verb is None or (options.verb == "people" and options.action == "list"))


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "label",
        "The labeling studio: projects, people, and the pages in which they work.",
        examples=[
            "label --demo                                      a ready project on generated pairs",
            "label create hh --data hh@v2 --task pairwise      a project over a dataset version",
            "label people add anna                             an account; its token is shown once",
            "label serve                                       the studio, on this machine only",
            "label commit hh                                   the labels as a new dataset version",
            "label                                             projects and how far they are",
        ],
    )
    parser.add_argument("--demo", action="store_true", help="serve a ready project on generated sample pairs")
    verbs = parser.add_subparsers(dest="verb", metavar="{serve,create,add,prioritize,commit,people}")
    serve = verbs.add_parser("serve", help="serve pages and REST API")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    serve.add_argument("--port", type=int, default=8501)
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name under which a proxy on this machine passes requests on (repeatable)",
    )
    create = verbs.add_parser("create", help="a new project over a dataset version")
    create.add_argument("name")
    create.add_argument("--data", required=True, help="dataset version NAME@VERSION")
    create.add_argument("--task", default="pairwise", help=f"TOML file, or one of: {', '.join(shipped())}")
    create.add_argument("--gold", help="dataset version whose labels are known answers, mixed in to measure people")
    add = verbs.add_parser("add", help="take in what denoising, drift and evaluation have queued for a project")
    add.add_argument("name")
    order = verbs.add_parser("prioritize", help="let reward models decide what is labeled next")
    order.add_argument("name")
    order.add_argument("--strategy", choices=get_args(Strategy), default="uncertainty")
    order.add_argument("--model", nargs="+", default=[], help="one or more reward models; two or more to disagree")
    commit = verbs.add_parser("commit", help="the project's labels as a new dataset version")
    commit.add_argument("name")
    commit.add_argument("--dataset", help="dataset to commit to (default: NAME-labels)")
    commit.add_argument(
        "--merge", action="store_true", help="all rows of the project's data, the answered ones relabeled"
    )
    accounts = verbs.add_parser("people", help="list, add or remove accounts")
    accounts.add_argument("action", nargs="?", choices=["list", "add", "remove"], default="list")
    accounts.add_argument("person", nargs="?")
    accounts.add_argument("--role", choices=["annotator", "lead", "admin"], default="annotator")
    for verb in verbs.choices.values():  # so that --json may stand behind the verb too
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _serve(ledger: Ledger, options: Any) -> int:
    from labeling_ui.web.server import serve

    if not any(True for _ in people(ledger)):
        token = add_person(ledger, getpass.getuser(), role="admin")
        print(f"open http://{options.host}:{options.port}/enter?token={token}  (you are its admin)", flush=True)
    else:
        print(f"serving http://{options.host}:{options.port}", flush=True)
    serve(ledger, host=options.host, port=options.port, hosts=options.allow_host)
    return 0


def _create(ledger: Ledger, options: Any) -> int:
    project = create_project(
        ledger, options.name, task=read_definition(options.task), data=options.data, gold=options.gold
    )
    progress = project.desk(ledger, read_only=True).progress()
    left_out = "".join(f"; {count} rows left out: {reason}" for reason, count in project.skipped.items())
    text = f"project {project.name}: {progress['items']} items from {project.data}{left_out}\nnext: rmkit label serve"
    console.emit({"project": project.name, "skipped": project.skipped, **progress}, as_json=options.json, text=text)
    return 0


def _add(ledger: Ledger, options: Any) -> int:
    added = add_queued(ledger, open_project(ledger, options.name))
    console.emit({"added": added}, as_json=options.json, text=f"{added} new items in {options.name}")
    return 0


def _prioritize(ledger: Ledger, options: Any) -> int:
    from labeling_ui.learning.rank_items import prioritize

    summary = prioritize(ledger, open_project(ledger, options.name), options.strategy, models=options.model)
    text = (
        f"{options.name}: {summary['items']} items ordered by {options.strategy}; a running studio takes it up on "
        "restart"
    )
    console.emit(summary, as_json=options.json, text=text)
    return 0


def _commit(ledger: Ledger, options: Any) -> int:
    from labeling_ui.projects.labels import commit_labels

    lead = Person(getpass.getuser(), "lead")  # whoever can open the warehouse's file may write to it
    output = commit_labels(
        ledger, open_project(ledger, options.name), lead, dataset=options.dataset, merge=options.merge
    )
    result = {"version": output.version.ref, "rows": output.version.n_rows, "digest": output.version.digest}
    ref = output.version.ref
    text = f"{ref}: {output.version.n_rows} labeled rows\nnext: rmkit train frozen --data {ref}"
    console.emit(result, as_json=options.json, text=text)
    return 0


def _people(ledger: Ledger, options: Any) -> int:
    match options.action, options.person:
        case "add", str(name):
            token = add_person(ledger, name, role=options.role)
            text = f"{name} is {options.role}; the token, shown this once: {token}"
            console.emit({"name": name, "role": options.role, "token": token}, as_json=options.json, text=text)
        case "remove", str(name):
            remove_person(ledger, name)
            console.emit({"removed": name}, as_json=options.json, text=f"{name} can no longer sign in")
        case _:
            result = [{"name": person.name, "role": person.role} for person in people(ledger)]
            text = "\n".join(f"{one['name']:<24}{one['role']}" for one in result) or "no accounts yet"
            console.emit({"people": result}, as_json=options.json, text=text)
    return 0


def _list(ledger: Ledger, options: Any) -> int:
    rows = [
        {"name": project.name, "task": project.task.name, "data": project.data}
        | project.desk(ledger, read_only=True).progress()
        for project in projects(ledger)
    ]
    lines = [f"{row['name']:<20}{row['task']:<14}{row['answered']} of {row['wanted']} answers" for row in rows]
    text = "\n".join(lines) or "no projects yet; make one with: rmkit label create NAME --data DATASET@VERSION"
    console.emit({"projects": rows}, as_json=options.json, text=text)
    return 0
