"""What nobody can say over the network, a lead included: addresses, keys, paths of the server, code to import.

Whoever writes to a page's socket may send any text for a choice: Streamlit takes what is none of the options for the
default, and the pages are held to that here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from labeling_ui.command import main as label
from labeling_ui.desk.served_models import ServedModels, read_served
from labeling_ui.playground import play
from labeling_ui.projects.definition import TaskDefinition, read_definition
from labeling_ui.projects.members import add_member
from labeling_ui.projects.people import Person, add_person
from labeling_ui.projects.project import Project, create_project, open_project
from labeling_ui.web import studio
from labeling_ui.web.api import routes
from labeling_ui.web.studio import Studio
from rmkit.errors import ConfigError, EndpointError
from rmkit.generate.config import GeneratorConfig
from rmkit.ledger import Ledger
from rmkit.types import Candidates, Completion, Message
from tests.labeling_ui.conftest import ANNA, BEN, LEA

streamlit_testing = pytest.importorskip("streamlit.testing.v1")
Make = Callable[..., Project]
SECRET, URL = "STUDIO_TEST_SECRET", "http://127.0.0.1:9/v1"
SERVED = {name: GeneratorConfig(model=name, base_url=URL) for name in ("one", "other")}
LIVE = replace(read_definition("live"), models=("one", "other"))
Post = Callable[..., tuple[int, Any]]


@pytest.fixture
def app(ledger: Ledger, pairs: str) -> Iterator[TestClient]:
    studio.use(Studio(ledger, ServedModels(SERVED)))
    yield TestClient(Starlette(routes=routes()))
    studio.use(None)


@pytest.fixture
def send(app: TestClient, ledger: Ledger) -> Post:
    headers = {"Authorization": f"Bearer {add_person(ledger, 'lea', role='lead')}"}

    def send_(method: str, path: str, body: object) -> tuple[int, Any]:
        answer = app.request(method, path, headers=headers, json=body)
        return answer.status_code, answer.json()

    return send_


def _plain(task: TaskDefinition, **changes: object) -> dict[str, object]:
    return {**asdict(task), **changes}


def test_a_lead_names_models_and_no_address_and_no_key(
    send: Post, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "sk-secret")
    tables = [{"model": "m", "base_url": "http://10.0.0.1/v1", "key_env": SECRET}] * 2
    status, answer = send("POST", "/api/projects", {"name": "p", "data": "sums", "task": _plain(LIVE, models=tables)})
    assert status == 400
    assert "models" in answer["error"]
    assert "sk-secret" not in str(answer)
    for names in (["one", "http://10.0.0.1/v1"], ["one", "/etc"], ["one", "two"]):
        status, answer = send(
            "POST", "/api/projects", {"name": "p", "data": "sums", "task": _plain(LIVE, models=names)}
        )
        assert (status, "served model" in answer["error"]) == (400, True)
    task = _plain(LIVE, max_tokens=10**6)
    assert "8192" in send("POST", "/api/projects", {"name": "p", "data": "sums", "task": task})[1]["error"]
    assert send("POST", "/api/projects", {"name": "p", "data": "sums", "task": _plain(LIVE)})[0] == 200
    for changes in ({"models": tables}, {"models": ["one", "two"]}):
        assert send("PUT", "/api/projects/p/task", {"task": _plain(LIVE, **changes)})[0] == 400
    assert open_project(ledger, "p").task.models == ("one", "other")


def test_a_task_cannot_name_a_file_of_the_server(send: Post, tmp_path: Path) -> None:
    file = tmp_path / "secret.toml"
    file.write_text('name = "s"\nkind = "pairwise"\ntitle = "T"\nquestion = "sk-secret"\n')
    status, answer = send("POST", "/api/projects", {"name": "p", "data": "sums", "task": str(file)})
    assert (status, "sk-secret" in str(answer)) == (400, False)
    assert send("POST", "/api/projects", {"name": "p", "data": str(file)})[0] == 400


def _opened(ledger: Ledger, module: str, person: Person) -> Any:
    add_person(ledger, person.name, role=person.role)
    script = f"from labeling_ui.web.pages import {module}\n{module}.page()"
    page = streamlit_testing.AppTest.from_string(script, default_timeout=30)
    page.session_state["person"] = person
    return page.run()


def _send(page: Any, widget: Any, value: Any) -> Any:
    """What a made-up browser sends for a choice."""
    states = page._tree.get_widget_states()
    for state in states.widgets:
        if state.id == widget.proto.id:
            states.widgets.remove(state)
            break
    state = states.widgets.add()
    state.id = widget.proto.id
    if isinstance(value, str):
        state.string_value = value
    else:
        state.string_array_value.data[:] = value
    return page._run(states)


def test_a_page_takes_no_path_for_a_task(app: TestClient, ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "secret.toml"
    file.write_text('name = "s"\nkind = "pairwise"\ntitle = "T"\nquestion = "sk-secret"\n')
    page = _opened(ledger, "new_project", LEA)
    page = _send(page, page.selectbox(key="new-kind"), str(file))
    assert "sk-secret" not in str([one.value for one in page.text_input])


def test_a_page_shows_no_project_of_which_one_is_no_member(app: TestClient, ledger: Ledger, make_project: Make) -> None:
    for name in ("first", "second", "theirs"):
        make_project(name, guidelines=f"the words of {name}")
    add_person(ledger, BEN.name, role=BEN.role)
    add_member(ledger, "theirs", BEN.name)
    page = _opened(ledger, "annotate", ANNA)
    choice = page.sidebar.selectbox(key="project")
    assert "theirs" not in choice.options
    page = _send(page, choice, "theirs")
    assert "the words of theirs" not in str([one.value for one in page.markdown])


def test_the_playground_asks_no_judge_that_it_does_not_list(home: Path, tmp_path: Path) -> None:
    module = tmp_path / "hostile.py"
    module.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    case = Candidates((Message("user", "q"),), (Completion((Message("assistant", "a"),)),))
    names = [str(tmp_path), "../..", "hostile:Model", "external", "http://127.0.0.1:9", "served: x"]
    played = play(case, names, weights={})
    assert (played.columns, set(played.failed)) == ((), set(names))
    assert all("judge" in why for why in played.failed.values())
    assert not (tmp_path / "ran").exists()


def test_the_models_file_says_what_is_wrong_and_a_model_that_has_gone_says_no_name(
    tmp_path: Path, ledger: Ledger, pairs: str
) -> None:
    file = tmp_path / "models.toml"
    for text, message in (
        ('one = "http://x"', "expected a table"),
        ('[one]\nmodel = "m"', "base_url"),
        ('[one]\nmodel = "m"\nbackend = "local"', "base_url"),
        ('[one]\nmodel = "m"\nbase_url = "http://x"\nkey = "k"', "unknown key"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_served(file)
    file.write_text(f'[one]\nmodel = "m"\nbase_url = "{URL}"\n')
    assert list(read_served(file)) == ["one"]
    create_project(ledger, "p", task=LIVE, data="sums@v1")
    with pytest.raises(EndpointError, match="not served here") as error:
        ServedModels().ask(LIVE)((Message("user", "hi"),))
    assert "one" not in str(error.value).split()


def test_one_broken_project_is_listed_as_broken_and_the_others_work(
    send: Post, app: TestClient, ledger: Ledger, make_project: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """A live task as it was written before models were names alone, and a project whose folder is gone."""
    make_project()
    whole = ledger.record("project", "sums")
    assert whole is not None
    old = {**whole.value["task"], "kind": "live", "models": [{"model": "one", "base_url": URL}] * 2}
    ledger.put("project", "old", {**whole.value, "task": old})
    ledger.put("project", "gone", dict(whole.value))
    status, every = send("GET", "/api/projects", None)
    assert (status, [one["name"] for one in every]) == (200, ["sums", "old", "gone"])
    assert every[1]["broken"].startswith("project old cannot be read by this rmkit: its task: ")
    assert "has no items" in every[2]["broken"]
    status, refused = send("GET", "/api/projects/old", None)
    assert (status, "cannot be read" in refused["error"]) == (400, True)
    assert label(["list"]) == 0
    shown = capsys.readouterr().out
    assert "0 of 24" in shown
    assert "broken: old: project old cannot be read" in shown
    page = _opened(ledger, "annotate", LEA)
    (said,) = page.sidebar.warning
    assert said.value.startswith("old is broken\\: project old cannot be read by this rmkit\\: its task\\: models\\: ")


def test_a_live_task_whose_models_are_not_served_says_so_in_a_sentence(app: TestClient, ledger: Ledger) -> None:
    studio.use(Studio(ledger))
    create_project(ledger, "chat", task=LIVE, data="sums@v1")
    (said,) = _opened(ledger, "task_page", LEA).error
    assert said.value.startswith("A live chat is with two models\\, and 0 of the served ones are chosen")
    assert "Not served any more\\: one\\, other" in said.value
