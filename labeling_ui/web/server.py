"""One uvicorn process that serves the pages, the REST API and the only writer queue of the ledger."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labeling_ui.background import repeated
from labeling_ui.desk.served_models import ServedModels
from labeling_ui.hooks.deliver import Sender, sending
from labeling_ui.projects.project import projects
from labeling_ui.web import pages, studio
from labeling_ui.web.guard import Guard
from labeling_ui.web.studio import Studio
from rmkit.errors import MissingExtraError, RmkitError, UsageError
from rmkit.ledger import Ledger
from warehouse.events.sync import sync
from warehouse.store import open_warehouse

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = logging.getLogger(__name__)

SCRIPT = Path(pages.__file__).with_name("app.py")  # no folder `pages` beside it: Streamlit would take that for its own
MERGE_EVERY_S = 20.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def application(
    ledger: Ledger,
    *,
    hosts: Collection[str] | None = None,
    models: ServedModels | None = None,
    webhook_hosts: Collection[str] = (),
) -> ASGIApp:
    """The ASGI application over this ledger; `hosts` as in `Guard`, `models` are those of live chats, `webhook_hosts`
    as in `Studio`.

    Raises MissingExtraError without Streamlit.
    """
    try:
        from streamlit.starlette import App
    except ImportError as error:
        raise MissingExtraError("streamlit", "ui") from error
    from starlette.middleware import Middleware

    from labeling_ui.web.api import routes

    configure()
    studio.use(Studio(ledger, models, webhook_hosts=webhook_hosts))
    return App(SCRIPT, routes=routes(), middleware=[Middleware(Guard, hosts=hosts)])


def configure() -> None:
    """Streamlit's settings for this process."""
    from streamlit import config

    for option, value in {
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "server.maxUploadSize": 50,  # MB
        "server.fileWatcherType": "none",
        "runner.postScriptGC": False,  # a full collection after every run would hold back what the run has drawn
    }.items():
        config.set_option(option, value)


def _merge(ledger: Ledger) -> int:
    """The seq up to which nothing is left to merge, -1 where something must be tried again.

    The warehouse is let go of between batches: a page that reads it waits for one of them, not for all.
    """
    while True:
        with open_warehouse(wait_s=1.0) as connection:
            report = sync(connection, ledger, max_batches=1)
        if not report.behind:
            return -1 if report.n_waiting else report.cursor


def merging(ledger: Ledger, *, every_s: float = MERGE_EVERY_S) -> AbstractContextManager[None]:
    """While the block runs, new events go to the warehouse now and then; a busy warehouse gets them the next time."""
    settled = -1

    def turn() -> None:
        nonlocal settled
        try:
            if ledger.last_seq() != settled:
                settled = _merge(ledger)
        except RmkitError as error:
            log.info("not merged this time: %s", error)

    return repeated(turn, every_s=every_s, name="label-merge")


def warm(here: Studio) -> None:
    """Load what the first visitor would wait for: the pages' modules, every project's items and answers."""
    for module in pkgutil.iter_modules(pages.__path__, f"{pages.__name__}."):
        importlib.import_module(module.name)
    for project in projects(here.ledger):
        try:
            here.work(project.name).frame()
        except (RmkitError, OSError) as error:
            log.warning("project %s cannot be opened: %s", project.name, error)


def serve(
    ledger: Ledger,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    hosts: Collection[str] = (),
    models: ServedModels | None = None,
    webhook_hosts: Collection[str] = (),
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until interrupted; on loopback, under its own names and `hosts`. `ready` is called once the port answers.

    Raises UsageError where others could reach it and nobody has an account.
    """
    import uvicorn

    from labeling_ui.projects.people import people

    if host not in LOOPBACK and not any(True for _ in people(ledger)):
        raise UsageError(f"{host} is open to others and there is no account yet; first: rmkit label people add NAME")
    logging.getLogger("streamlit").setLevel(logging.WARNING)
    app = application(ledger, hosts=hosts if host in LOOPBACK else None, models=models, webhook_hosts=webhook_hosts)
    here = studio.current()
    threading.Thread(target=warm, args=(here,), name="label-warm", daemon=True).start()
    sender = Sender(ledger, lambda name: here.desk(name).progress(), allowed=webhook_hosts)

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets=sockets)
            if not self.should_exit:
                ready()

    with merging(ledger), sending(sender):
        Server(uvicorn.Config(app, host=host, port=port, log_level="warning")).run()
