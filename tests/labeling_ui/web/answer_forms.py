"""The answer's form in pages that run without a browser: what it was told to draw, and handing something back."""

from __future__ import annotations

import json
from typing import Any

from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.testing.v1 import AppTest


def forms(app: AppTest) -> list[dict[str, Any]]:
    """The data of the forms on the page, one or none."""
    return [data for _, data in _drawn(app)]


def answered(app: AppTest, values: dict[str, Any], *, id: str | None = None) -> AppTest:
    """The page after its form handed these values back (for the item of `id`, else its own)."""
    ((element, data),) = _drawn(app)
    states = app._tree.get_widget_states()
    event = {"event": "answer", "value": {"id": id or data["id"], "values": values}}
    trigger = states.widgets.add(id=_make_trigger_id(element, "events"))
    trigger.json_trigger_value = json.dumps([event])
    app._run(states)
    return app


def _drawn(app: AppTest) -> list[tuple[str, dict[str, Any]]]:
    elements = [(one.proto.id, json.loads(one.proto.json)) for one in app.get("bidi_component")]
    return [(id, data) for id, data in elements if "form" in data]
