"""A live chat with two models behind a real server that speaks the chat protocol and says what a script says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import ingest
from labeling_ui.benchmarks.process import Server
from labeling_ui.desk.live import KIND
from labeling_ui.desk.served_models import ServedModels
from labeling_ui.projects.definition import read_definition
from labeling_ui.projects.people import add_person
from labeling_ui.projects.project import create_project
from labeling_ui.web import studio
from labeling_ui.web.studio import Studio
from rmkit.generate.config import GeneratorConfig
from rmkit.ledger import Ledger, open_ledger
from tests.labeling_ui.conftest import ANNA
from tests.labeling_ui.web.answer_forms import answered, forms
from tests.labeling_ui.web.conftest import CHROMIUM
from tests.labeling_ui.web.test_keyboard import QUIET, READY

streamlit_testing = pytest.importorskip("streamlit.testing.v1")


class Script(BaseHTTPRequestHandler):
    """Each model answers with its own name and the last message; "be silent" makes the second one fail."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        words = asked["messages"][-1]["content"]
        silent = words == "be silent" and asked["model"] == "beta"
        message = {"role": "assistant", "content": f"{asked['model'][0]} hears {words}"}
        body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(400 if silent else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


TASK = replace(read_definition("live"), models=("one", "other"), gold_share=0.0, repeat_share=0.0)


@pytest.fixture
def served() -> Iterator[dict[str, GeneratorConfig]]:
    """The two models of TASK."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    yield {name: GeneratorConfig(model=model, base_url=url) for name, model in (("one", "alpha"), ("other", "beta"))}
    server.shutdown()
    server.server_close()


def test_the_page_chats_blind_and_says_when_a_model_is_silent(
    served: dict[str, GeneratorConfig], ledger: Ledger, pairs: str
) -> None:
    create_project(ledger, "live", task=TASK, data=pairs)
    studio.use(Studio(ledger, ServedModels(served)))
    try:
        add_person(ledger, "anna", role="annotator")
        app = streamlit_testing.AppTest.from_string(
            "from labeling_ui.web.pages import annotate\nannotate.page()", default_timeout=60
        )
        app.session_state["person"] = ANNA
        app = app.run()
        assert forms(app)[0]["form"]["starts"][0]["text"].startswith("Question")
        app = answered(app, {"place": 0, "texts": {"0": "be silent"}})
        assert forms(app)[0]["refused"] == "a model gave no reply; send the message again, or skip and tell your lead"
        app = answered(app, {"place": 0, "texts": {"0": "hello"}})
        drawn = "".join(json.loads(one.proto.json).get("html", "") for one in app.get("bidi_component"))
        assert "a hears hello" in drawn
        assert "b hears hello" in drawn
        assert "alpha" not in drawn + str(forms(app))
        app = answered(app, {"choice": 0})
        (recorded,) = ledger.events(kinds=[KIND])
        payload = recorded.event.payload
        assert payload["models"] == ["alpha", "beta"]
        assert payload["ranks"][payload["shown_order"][0]] == 0
        app = next(button for button in app.button if button.label == "Finish").click().run()
        (judged,) = ledger.events(kinds=["judgment"])
        assert judged.event.payload["spans"] == [{"label": "live", "turns": 1}]
    finally:
        studio.use(None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_chats_by_keyboard_lose_and_double_nothing_while_the_studio_is_killed(
    served: dict[str, GeneratorConfig], home: Path, tmp_path: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    rows = [{"prompt": f"Question {n}?", "chosen": "yes", "rejected": "no"} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest(tmp_path / "rows.jsonl", dataset="rows")
    with open_ledger() as ledger:
        create_project(ledger, "live", task=TASK, data="rows@v1")
        token = add_person(ledger, "anna", role="annotator")
    file = tmp_path / "models.toml"
    tables = [f'[{name}]\nmodel = "{one.model}"\nbase_url = "{one.base_url}"\n' for name, one in served.items()]
    file.write_text("\n".join(tables))
    server = Server(home, options=["--models", str(file)])
    server.start()
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(f"{server.url}/enter?token={token}")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")

        def now() -> str:
            return str(page.evaluate("document.querySelector('.rmkit-answer').sheet.id"))

        def after(before: str) -> None:
            page.wait_for_function(READY, arg=before)
            page.wait_for_function(QUIET)

        def kill_and_reload() -> None:
            server.restart()
            page.reload()
            after("")

        after("")
        for chat in range(3):
            for turn in range(3):
                if (chat, turn) in ((0, 1), (2, 2)):
                    kill_and_reload()
                before = now()
                page.keyboard.press("Control+A")
                page.keyboard.type(f"chat {chat} turn {turn}")
                page.keyboard.press("Control+Enter")
                after(before)
                if (chat, turn) in ((0, 2), (1, 0)):
                    kill_and_reload()  # two replies wait for a choice
                before = now()
                page.keyboard.press("1" if turn % 2 else "7")
                after(before)
            before = now()
            page.keyboard.press("Escape")
            page.keyboard.press("f")
            if chat < 2:
                after(before)
        page.get_by_text("Nothing left for you here").wait_for()
        browser.close()
    server.kill()
    with open_ledger() as ledger:
        turns = [recorded.event.payload for recorded in ledger.events(kinds=[KIND])]
        finished = [recorded.event.payload["spans"] for recorded in ledger.events(kinds=["judgment"])]
    said = [json.loads(turn["prompt"])[-1]["content"] for turn in turns]
    assert said == [f"chat {chat} turn {turn}" for chat in range(3) for turn in range(3)]
    assert finished == [[{"label": "live", "turns": 3}]] * 3
    chosen = [turn["shown_order"].index(turn["ranks"].index(0)) for turn in turns]
    assert chosen == [1, 0, 1] * 3
