"""`rmkit label demo`: a project on the built-in sample, ready to be judged."""

from __future__ import annotations

from dataclasses import replace

from data_pipelines import sample
from data_pipelines.ingest.command import ingest
from labeling_ui.projects.definition import read_definition
from labeling_ui.projects.people import Person, add_key, add_person, keys, people, remove_key
from labeling_ui.projects.project import Project, create_project, open_project
from rmkit import paths
from rmkit.ledger import Ledger

NAME = "demo"
LINKS = 3  # so many links of earlier starts still open the demo


def make_demo(ledger: Ledger) -> Project:
    """The project `demo`, made from generated pairs at the first call."""
    if ledger.record("project", NAME) is not None:
        return open_project(ledger, NAME)
    file, _ = sample.write(paths.home() / "sample", sample.SampleConfig(pairs=400))
    report = ingest(file, dataset=NAME)
    assert report.version is not None
    task = replace(read_definition("pairwise"), name=NAME, quiz=(), overlap=1)
    return create_project(ledger, NAME, task=task, data=report.version.ref)


def demo_token(ledger: Ledger, name: str) -> str:
    """A token for this machine's user, an admin, at every start; who is signed in from an earlier one stays so."""
    user = next((one for one in people(ledger) if one.name == name), None)
    if user is None:
        return add_person(ledger, name, role="admin")
    labels = sorted(label for label in keys(ledger, user) if label.startswith("demo "))
    for label in labels[: len(labels) - LINKS + 1]:
        remove_key(ledger, user, label)
    last = int(labels[-1].split()[1]) if labels else 0
    return add_key(ledger, Person(name, user.role), f"demo {last + 1:06d}")
