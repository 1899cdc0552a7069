"""How long a person works on an item, as their browser counts it.

Work is the time between signs of life on the page: keys, pointer, scrolling. A pause counts up to IDLE_S, a hidden page
not at all. The browser reports to `/activity/PROJECT/ID`, whose id only the one who holds the item knows; what it
claims is believed up to the time since the item was given out (`Desk.submit`).
"""

from __future__ import annotations

import json

from labeling_ui.desk.leases import Lease

IDLE_S = 60
PATH = "/activity/{project}/{id}"
MAX_BODY = 200  # bytes


def watched(project: str, hold: Lease) -> dict[str, object]:
    """What the browser must know to count the work on this item (`assets/activity.js`)."""
    path = PATH.format(project=project, id=hold.id)
    return {"id": f"{hold.id}-{hold.revision}", "path": path, "idle_s": IDLE_S}


def read_report(body: bytes) -> int | None:
    """Milliseconds of work that a browser reports, None for anything else."""
    try:
        value = json.loads(body).get("active_ms")
    except (ValueError, AttributeError, RecursionError):
        return None
    return value if type(value) is int and value >= 0 else None
