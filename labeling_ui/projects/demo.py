"""`rmkit label demo`: a project on the built-in sample, ready to be judged."""

from __future__ import annotations

from dataclasses import replace

from data_pipelines import sample
from data_pipelines.ingest.command import ingest
from labeling_ui.projects.definition import read_definition
from labeling_ui.projects.project import Project, create_project, open_project
from rmkit import paths
from rmkit.ledger import Ledger

NAME = "demo"


def make_demo(ledger: Ledger) -> Project:
    """The project `demo`, made from generated pairs at the first call."""
    if ledger.record("project", NAME) is not None:
        return open_project(ledger, NAME)
    file, _ = sample.write(paths.home() / "sample", sample.SampleConfig(pairs=400))
    report = ingest(file, dataset=NAME)
    assert report.version is not None
    task = replace(read_definition("pairwise"), name=NAME, quiz=(), overlap=1)
    return create_project(ledger, NAME, task=task, data=report.version.ref)
