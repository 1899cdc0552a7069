"""The part of docs/formats.md that is generated from the tables of forms and roles: `python -m
data_pipelines.sources.documentation docs/formats.md` writes it anew, and a test compares.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.sources import all_sources
from data_pipelines.sources.examples import example_of
from data_pipelines.sources.form import ROLES, Form
from data_pipelines.sources.gathered import GATHERS
from data_pipelines.sources.source import Source
from rmkit.cli import display

BEGIN, END = "<!-- generated from here: data_pipelines.sources.documentation -->", "<!-- to here -->"
MAX_EXAMPLE = 260
_SIDES = {"a": "the first", "b": "the second", "tie": "a tie", "none": "no vote"}


def generated() -> str:
    """Roles, forms with signature, labels and kind of rater, gathered exports, and an example row of each form."""
    sources = all_sources()
    roles = display.markdown(("role", "what lies there"), ((f"`{name}`", text) for name, text in ROLES.items()))
    table = display.markdown(("form", "what it is", "told by", "labels", "raters"), map(_line, sources))
    gathered = display.markdown(("export", "what it is"), ((f"`{one.name}`", one.about) for one in GATHERS))
    examples = "\n".join(f"{source.name:<28}{_shown(example_of(source))}" for source in sources)
    return (
        f"### Roles\n\n{roles}\n\n### Forms\n\nOf the forms that know a row the first is taken.\n\n{table}\n\n"
        f"Exports whose rows are not what is judged are gathered into such rows first:\n\n{gathered}\n\n"
        f"### A row of each\n\n```text\n{examples}\n```\n"
    )


def with_generated(page: str) -> str:
    """A page with the generated part between its marks."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{generated()}\n{END}{after}"


def _line(source: Source) -> tuple[str, str, str, str, str]:
    form = source.form
    if form is None:
        return f"`{source.name}`", "(benchmark)" if source.is_benchmark else "", source.about, source.labels, ""
    columns = ", ".join(f"`{name}`" for name in form.signature)
    columns += ", and nothing else" if form.exact else ""
    columns += f"; one of {', '.join(f'`{name}`' for name in form.any_of)}" if form.any_of else ""
    about = f"{form.about} (benchmark)" if form.is_benchmark else form.about
    return f"`{form.name}`", about, columns, labels_of(form), form.kind


def labels_of(form: Form) -> str:
    """How a form codes its labels, in words."""
    parts = [f"`{value}` {_SIDES[side]}" for value, side in form.values.sides.items()]
    parts += [f"`{value}` is {number:g}" for value, number in list(form.values.numbers.items())[:4]]
    if form.values.soft:
        low, high = form.values.soft
        parts.append(f"{low:g} the first ... {high:g} the second, the share is the strength")
    if not parts and "chosen" in form.roles:
        parts.append("chosen is better")
        parts += ["equal scores are a tie"] if "score_a" in form.roles else []
    if not parts and "preference" in form.roles:
        parts.append("words: a, model_b, tie, both_bad ...")
    if not parts and "scores" in form.roles:
        parts.append(f"higher {form.aspect} is better")
    parts += ["lowest rank is best"] if "ranks" in form.roles else []
    parts += ["true or false"] if "label" in form.roles else []
    parts += ["first wrong step from 0, -1 none"] if "first_error" in form.roles else []
    parts += ["a label for each step"] if "step_labels" in form.roles else []
    parts += ["texts by --items"] if form.needs_items else []
    parts += [form.note] if form.note else []
    return "; ".join(parts)


def _shown(row: Mapping[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False)
    return text if len(text) <= MAX_EXAMPLE else text[: MAX_EXAMPLE - 4] + " ..."


def main(path: str) -> None:
    """Write the generated part of a page anew."""
    page = Path(path)
    page.write_text(with_generated(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
