"""`rmkit label`: make projects and accounts, serve the studio, take its labels into the warehouse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

from labeling_ui.projects.definition import Strategy, read_definition, shipped
from labeling_ui.projects.members import add_member, members, remove_member
from labeling_ui.projects.people import Person, add_person, people, remove_person
from labeling_ui.projects.project import add_queued, broken_projects, create_project, open_project, projects
from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.errors import RmkitError, UsageError
from rmkit.ledger import open_ledger
from rmkit.user import user_name


def _demo(argv: list[str]) -> int:
    parser = arguments.parser("label demo", "Serve a ready project on generated sample pairs.", examples=["label demo"])
    parser.add_argument("--port", type=int, default=8501, help="port")
    options = parser.parse_args(argv)
    from labeling_ui.projects.demo import demo_token, make_demo

    with open_ledger() as ledger:
        make_demo(ledger)
        token = demo_token(ledger, user_name())
    return _serve([*(["--json"] if options.json else []), "--port", str(options.port)], token=token)


def _serve(argv: list[str], *, token: str | None = None) -> int:
    """`token` is one to sign in with, for a link that is printed."""
    parser = arguments.parser(
        "label serve",
        "Serve the studio's pages and REST API.",
        examples=["label serve", "label serve --models models.toml"],
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8501, help="port")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name under which a proxy on this machine passes requests on (repeatable)",
    )
    parser.add_argument(
        "--models", type=Path, metavar="FILE", help="TOML file of the models of live chats: where each is and its key"
    )
    parser.add_argument(
        "--allow-webhook",
        action="append",
        default=[],
        metavar="HOST",
        help="host of a private network to which leads may send webhooks, by http too (repeatable)",
    )
    options = parser.parse_args(argv)
    from labeling_ui.desk.served_models import ServedModels, read_served
    from labeling_ui.web.server import serve

    models = ServedModels(read_served(options.models) if options.models else None)
    with open_ledger() as ledger:
        if token is None and not any(True for _ in people(ledger)):
            token = add_person(ledger, user_name(), role="admin")
        at = f"http://{options.host}:{options.port}"

        def ready() -> None:
            url = f"{at}/enter?token={token}" if token else at
            text = f"open {url}  (you are its admin)" if token else f"serving {at}"
            display.emit({"url": url}, as_json=options.json, text=text)
            sys.stdout.flush()

        serve(
            ledger,
            host=options.host,
            port=options.port,
            hosts=options.allow_host,
            models=models,
            webhook_hosts=[host.lower() for host in options.allow_webhook],
            ready=ready,
        )
    return 0


def _create(argv: list[str]) -> int:
    parser = arguments.parser(
        "label create",
        "A new project over a dataset version.",
        examples=[
            "label create hh --data hh@v2 --task pairwise",
            "label create drift-hh --data hh@v2 --task edit --queued     # what drift found, nothing else",
        ],
    )
    parser.add_argument("name", help="of the project")
    parser.add_data(help="dataset version NAME@VERSION")
    parser.add_argument("--task", default="pairwise", help=f"TOML file, or one of: {', '.join(shipped())}")
    parser.add_argument("--gold", help="dataset version whose labels are known answers, mixed in to measure people")
    parser.add_argument(
        "--queued",
        action="store_true",
        help="only what denoising, drift and evaluation have queued for it, no row of DATA",
    )
    options = parser.parse_args(argv)
    with open_ledger() as ledger:
        definition = read_definition(options.task)
        project = create_project(
            ledger, options.name, task=definition, data=options.data, gold=options.gold, queued=options.queued
        )
        progress = project.desk(ledger, read_only=True).progress()
    what = "findings" if options.queued else "rows"
    left_out = "".join(f"; {count} {what} left out: {reason}" for reason, count in project.skipped.items())
    source = "the queue" if options.queued else project.data
    text = f"project {project.name}: {progress['items']} items from {source}{left_out}\nnext: rmkit label serve"
    display.emit({"project": project.name, "skipped": project.skipped, **progress}, as_json=options.json, text=text)
    return 0


def _add(argv: list[str]) -> int:
    parser = arguments.parser(
        "label add", "Take in what denoising, drift and evaluation have queued.", examples=["label add suspects"]
    )
    parser.add_argument("name", help="of the project")
    options = parser.parse_args(argv)
    with open_ledger() as ledger:
        added = add_queued(ledger, open_project(ledger, options.name))
    left_out = "".join(f"; {count} left out: {reason}" for reason, count in added.left_out.items())
    text = f"{added.items} new items in {options.name}{left_out}"
    display.emit({"added": added.items, "left_out": added.left_out}, as_json=options.json, text=text)
    return 0


def _prioritize(argv: list[str]) -> int:
    parser = arguments.parser(
        "label prioritize",
        "Let reward models decide what is labeled next.",
        examples=["label prioritize hh --model models/hh --strategy uncertainty"],
    )
    parser.add_argument("name", help="of the project")
    parser.add_argument("--strategy", choices=get_args(Strategy), default="uncertainty", help="what comes first")
    parser.add_models("--model", nargs="+", default=[], help="reward models; two or more to disagree")
    parser.add_device()
    options = parser.parse_args(argv)
    from labeling_ui.learning.rank_items import prioritize

    with open_ledger() as ledger:
        summary = prioritize(ledger, open_project(ledger, options.name), options.strategy, models=options.model)
    text = (
        f"{options.name}: {summary['items']} items ordered by {options.strategy}; a running studio takes it up at once"
    )
    display.emit(summary, as_json=options.json, text=text)
    return 0


def _opinions(argv: list[str]) -> int:
    parser = arguments.parser(
        "label opinions",
        "Let a process model score the steps of a project's items: people see what it thinks after their own answer. "
        "The same command again asks for items that came later.",
        examples=["label opinions steps --model models/steps"],
    )
    parser.add_argument("name", help="of a project whose task is steps")
    parser.add_model("--model", required=True, help="a process model")
    parser.add_device()
    options = parser.parse_args(argv)
    from labeling_ui.learning.step_opinions import ask_model

    with open_ledger() as ledger:
        summary = ask_model(ledger, open_project(ledger, options.name), options.model)
    text = (
        f"{options.name}: {summary['model']} {str(summary['fingerprint'])[:8]} has scored {summary['items']} items "
        f"({summary['asked']} of them now, {summary['unscored']} without a score); people see it after their own answer"
    )
    display.emit(summary, as_json=options.json, text=text)
    return 0


def _suggest(argv: list[str]) -> int:
    parser = arguments.parser(
        "label suggest",
        "Suggest answers to people, as the project's task says when (its `suggestions`).",
        examples=["label suggest hh --model models/hh", "label suggest hh-again --answers hh"],
    )
    parser.add_argument("name", help="of the project")
    parser.add_model("--model", help="reward model whose scores are suggested")
    parser.add_device()
    parser.add_argument("--answers", metavar="PROJECT", help="project of the same kind whose answers are suggested")
    options = parser.parse_args(argv)
    from labeling_ui.learning.suggest import suggest_by_answers, suggest_by_model

    if (options.model is None) == (options.answers is None):
        raise UsageError("name either --model or --answers")
    lead = Person(user_name(), "lead")
    with open_ledger() as ledger:
        project = open_project(ledger, options.name)
        if options.model is None:
            n = suggest_by_answers(ledger, project, lead, options.answers)
        else:
            n = suggest_by_model(ledger, project, lead, options.model, trusted=True)
    mode = project.task.suggestions
    hint = '; they are off: set suggestions = "after" in its task' if mode == "off" else f"; shown: {mode}"
    display.emit({"project": project.name, "items": n}, as_json=options.json, text=f"{n} items have one{hint}")
    return 0


def _commit(argv: list[str]) -> int:
    parser = arguments.parser(
        "label commit", "The project's labels as a new dataset version.", examples=["label commit hh --merge"]
    )
    parser.add_argument("name", help="of the project")
    parser.add_argument("--dataset", help="dataset to commit to (default: NAME-labels)")
    parser.add_argument(
        "--merge", action="store_true", help="all rows of the project's data, the answered ones relabeled"
    )
    options = parser.parse_args(argv)
    from labeling_ui.projects.labels import commit_labels

    lead = Person(user_name(), "lead")  # whoever can open the warehouse's file may write to it
    with open_ledger() as ledger:
        project = open_project(ledger, options.name)
        version = commit_labels(ledger, project, lead, dataset=options.dataset, merge=options.merge).version
    result = {"version": version.ref, "rows": version.n_rows, "digest": version.digest}
    text = f"{version.ref}: {version.n_rows} labeled rows\nnext: rmkit train frozen --data {version.ref}"
    display.emit(result, as_json=options.json, text=text)
    return 0


def _adjudicate(argv: list[str]) -> int:
    parser = arguments.parser(
        "label adjudicate",
        "A new project of the pairs on which a project's people disagree.",
        examples=["label adjudicate hh", "label members add hh-disputes cara --role adjudicator"],
    )
    parser.add_argument("name", help="of the project that was annotated")
    parser.add_argument("--as", dest="new", metavar="NAME", help="name of the new project (default: NAME-disputes)")
    parser.add_argument("--task", default="adjudication", help="TOML file of the task")
    options = parser.parse_args(argv)
    from labeling_ui.projects.disputes import create_adjudication

    lead = Person(user_name(), "lead")
    with open_ledger() as ledger:
        source, task = open_project(ledger, options.name), read_definition(options.task)
        project = create_adjudication(ledger, source, lead, name=options.new, task=task)
        n_items = project.desk(ledger, read_only=True).progress()["items"]
    text = (
        f"project {project.name}: {n_items} items on which people disagree; leads see it, and who is added\n"
        f"next: rmkit label members add {project.name} NAME --role adjudicator"
    )
    display.emit({"project": project.name, "items": n_items}, as_json=options.json, text=text)
    return 0


def _members_list(argv: list[str]) -> int:
    parser = arguments.parser("label members list", "Members of a project.", examples=["label members list hh"])
    parser.add_argument("name", help="of the project")
    options = parser.parse_args(argv)
    with open_ledger(read_only=True) as ledger:
        inside = members(ledger, open_project(ledger, options.name).name)
    text = display.table(("name", "role"), [list(row) for row in inside.items()]) if inside else "open to everyone"
    display.emit({"project": options.name, "members": inside}, as_json=options.json, text=text)
    return 0


def _members_add(argv: list[str]) -> int:
    parser = arguments.parser(
        "label members add",
        "Let a person into a project; the first member closes it to everyone else but leads.",
        examples=["label members add hh anna", "label members add hh-disputes cara --role adjudicator"],
    )
    parser.add_argument("name", help="of the project")
    parser.add_argument("person", help="login name")
    parser.add_argument("--role", choices=["annotator", "adjudicator"], default="annotator", help="what they do in it")
    options = parser.parse_args(argv)
    with open_ledger() as ledger:
        add_member(ledger, open_project(ledger, options.name).name, options.person, role=options.role)
    result = {"project": options.name, "name": options.person, "role": options.role}
    display.emit(result, as_json=options.json, text=f"{options.person} is {options.role} in {options.name}")
    return 0


def _members_remove(argv: list[str]) -> int:
    parser = arguments.parser("label members remove", "End a membership.", examples=["label members remove hh anna"])
    parser.add_argument("name", help="of the project")
    parser.add_argument("person", help="login name")
    options = parser.parse_args(argv)
    with open_ledger() as ledger:
        remove_member(ledger, open_project(ledger, options.name).name, options.person)
    result = {"project": options.name, "removed": options.person}
    display.emit(result, as_json=options.json, text=f"{options.person} is no longer in {options.name}")
    return 0


def _people_list(argv: list[str]) -> int:
    parser = arguments.parser("label people list", "All accounts.", examples=["label people"])
    options = parser.parse_args(argv)
    with open_ledger(read_only=True) as ledger:
        rows = [{"name": person.name, "role": person.role} for person in people(ledger)]
    text = display.table(("name", "role"), [list(row.values()) for row in rows]) if rows else "no accounts yet"
    display.emit({"people": rows}, as_json=options.json, text=text)
    return 0


def _people_add(argv: list[str]) -> int:
    parser = arguments.parser("label people add", "A new account, or a new token.", examples=["label people add anna"])
    parser.add_argument("person", help="login name")
    parser.add_argument("--role", choices=["annotator", "lead", "admin"], default="annotator", help="what it may do")
    options = parser.parse_args(argv)
    with open_ledger() as ledger:
        token = add_person(ledger, options.person, role=options.role)
    result = {"name": options.person, "role": options.role, "token": token}
    text = f"{options.person} is {options.role}; the token, shown this once: {token}"
    display.emit(result, as_json=options.json, text=text)
    return 0


def _people_remove(argv: list[str]) -> int:
    parser = arguments.parser("label people remove", "End an account.", examples=["label people remove anna"])
    parser.add_argument("person", help="login name")
    options = parser.parse_args(argv)
    with open_ledger() as ledger:
        remove_person(ledger, options.person)
    display.emit({"removed": options.person}, as_json=options.json, text=f"{options.person} can no longer sign in")
    return 0


def _list(argv: list[str]) -> int:
    options = arguments.parser("label list", "Projects and how far they are.", examples=["label"]).parse_args(argv)
    with open_ledger(read_only=True) as ledger:
        rows, broken = [], broken_projects(ledger)
        for project in projects(ledger):
            try:
                progress = project.desk(ledger, read_only=True).progress()
            except (RmkitError, OSError) as error:
                broken[project.name] = str(error)
                continue
            rows.append({"name": project.name, "task": project.task.name, "data": project.data, **progress})
    cells = [[row["name"], row["task"], f"{row['answered']} of {row['wanted']}"] for row in rows]
    nothing = "no projects yet; make one with: rmkit label create NAME --data DATASET@VERSION"
    lines = [display.table(("project", "task", "answers"), cells)] if rows else []
    lines += [f"broken: {name}: {reason}" for name, reason in broken.items()]
    display.emit({"projects": rows, "broken": broken}, as_json=options.json, text="\n".join(lines) or nothing)
    return 0


PEOPLE = Verbs(
    "label people",
    "Accounts of the studio.",
    {
        "list": Command(_people_list, "all accounts"),
        "add": Command(_people_add, "a new account; its token is shown once"),
        "remove": Command(_people_remove, "end an account"),
    },
    examples=["label people", "label people add anna --role lead"],
    default="list",
)
MEMBERS = Verbs(
    "label members",
    "Who works on a project; one without members is open to everyone.",
    {
        "list": Command(_members_list, "members of a project"),
        "add": Command(_members_add, "let a person in, as annotator or adjudicator"),
        "remove": Command(_members_remove, "end a membership"),
    },
    examples=["label members list hh", "label members add hh-disputes cara --role adjudicator"],
)
main = Verbs(
    "label",
    "The labeling studio: projects, people, and the pages in which they work.",
    {
        "list": Command(_list, "projects and how far they are"),
        "demo": Command(_demo, "serve a ready project on generated pairs"),
        "serve": Command(_serve, "serve pages and REST API"),
        "create": Command(_create, "a new project over a dataset version"),
        "add": Command(_add, "take in what denoising, drift and evaluation have queued for a project"),
        "prioritize": Command(_prioritize, "let reward models decide what is labeled next"),
        "opinions": Command(_opinions, "let a process model score steps, shown after a person's own answer"),
        "suggest": Command(_suggest, "let a model, or former answers, suggest answers to people"),
        "commit": Command(_commit, "the project's labels as a new dataset version"),
        "adjudicate": Command(_adjudicate, "a new project of what a project's people disagree on"),
        "members": Command(MEMBERS, "list, add or remove a project's members"),
        "people": Command(PEOPLE, "list, add or remove accounts"),
    },
    examples=[
        "label demo",
        "label create hh --data hh@v2 --task pairwise",
        "label people add anna                             # an account; its token is shown once",
        "label serve                                       # on this machine only",
        "label commit hh",
        "label",
    ],
    default="list",
)
