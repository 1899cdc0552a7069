"""What the pages and the REST API of one process share: the ledger with its writer queue, and one desk per project."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

from labeling_ui.desk.desk import Desk
from labeling_ui.desk.leases import Lease
from labeling_ui.desk.served_models import ServedModels
from labeling_ui.hooks.webhooks import Webhook, add_webhook, is_complete
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project, change_number, open_project
from labeling_ui.projects.work import Work
from rmkit.ledger import Ledger, open_ledger
from rmkit.types import Conversation


class Studio:
    """Desks are opened at first use and shared among threads; what was changed, here or elsewhere, is opened anew."""

    def __init__(
        self, ledger: Ledger, models: ServedModels | None = None, *, webhook_hosts: Collection[str] = ()
    ) -> None:
        """`webhook_hosts` are those of private networks to which webhooks may be sent."""
        self.ledger = ledger
        self.webhook_hosts = frozenset(webhook_hosts)
        self.models = models or ServedModels()
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Project, Desk, Work]] = {}
        self._changes: dict[str, int] = {}  # of each open project, as it was opened

    def project(self, name: str) -> Project:
        """The project of that name. Raises UsageError where there is none."""
        return self._opened(name)[0]

    def desk(self, name: str) -> Desk:
        """Its desk in this process."""
        return self._opened(name)[1]

    def opened(self, name: str) -> Desk | None:
        """The desk if this process has opened it already."""
        with self._lock:
            return self._open[name][1] if name in self._open else None

    def work(self, name: str) -> Work:
        """Its answers, as a frame that follows the ledger."""
        return self._opened(name)[2]

    def add_webhook(self, lead: Person, name: str, url: str, events: Sequence[str]) -> tuple[Webhook, str]:
        """A new webhook of a project and its secret. Errors as `labeling_ui.hooks.webhooks.add_webhook`."""
        is_over = is_complete(self.desk(name).progress())  # what was over before is no news
        allowed = self.webhook_hosts
        return add_webhook(self.ledger, lead, name, url=url, events=events, allowed=allowed, was_complete=is_over)

    def _opened(self, name: str) -> tuple[Project, Desk, Work]:
        with self._lock:
            if (changes := change_number(self.ledger, name)) != self._changes.get(name):
                self._open.pop(name, None)
            if name not in self._open:
                self._changes[name] = changes
                project = open_project(self.ledger, name)
                desk = project.desk(self.ledger)
                self._open[name] = project, desk, Work(self.ledger, name, desk.items)
            return self._open[name]


_lock = threading.Lock()
_current: Studio | None = None


def current() -> Studio:
    """This process's studio, on the ledger of `$RMKIT_HOME` (or `$RMKIT_LEDGER`)."""
    global _current
    with _lock:
        if _current is None:
            _current = Studio(open_ledger())
        return _current


def use(studio: Studio | None) -> None:
    """Make this the process's studio (the server and tests do)."""
    global _current
    with _lock:
        _current = studio


def visible(desk: Desk, hold: Lease, person: Person) -> Mapping[str, object]:
    """All that an annotator may see of an item, JSON-ready: no author, no known answer, no evidence, no other votes."""
    item, prefilled = desk.items[hold.item], desk.suggested(hold) if desk.task.suggestions == "prefilled" else None
    return ({} if prefilled is None else {"suggested": prefilled}) | {
        "id": hold.id,
        "kind": desk.task.kind,
        "prompt": _turns(item.prompt),
        "responses": [_turns(response) for response in desk.shown(hold)],
        "steps": item.steps if item.step_ends else [],
        "rubric": item.rubric,
        "held_until": hold.until,
        "draft": desk.draft(person, hold.id),
    }


def visible_progress(desk: Desk, person: Person) -> dict[str, int]:
    """How far the project is, for leads; everyone else gets their own answers alone.

    A count that stands still after an answer would say that its item was there to measure them.
    """
    own = {"yours": desk.n_answered(person)}
    return own | desk.progress() if person.may("lead") else own


def _turns(conversation: Conversation) -> list[dict[str, object]]:
    return [{name: value for name, value in asdict(turn).items() if value} for turn in conversation]
