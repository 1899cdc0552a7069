"""The published forms that are data, as sources; see `forms.toml`."""

from __future__ import annotations

from types import SimpleNamespace

from data_pipelines.sources.form import Form, published
from data_pipelines.sources.source import Source
from data_pipelines.sources.table_reader import TableReader


def as_source(form: Form) -> Source:
    return Source(form.name, form.about, form.matches, TableReader(form), form=form, is_benchmark=form.is_benchmark)


TABLE = SimpleNamespace(**{form.name: as_source(form) for form in published()})
NAMES = tuple(vars(TABLE))
