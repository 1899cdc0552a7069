"""A Hub id as a model: revision resolved in full, gated and absent repositories, a cut download, no connection at all;
against a server on this machine that answers as the Hub does."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rmkit.errors import ModelError  # noqa: E402
from rmkit.models import find_model, load_model  # noqa: E402
from rmkit.models.artifact.folder import open_artifact  # noqa: E402
from tests.rmkit.models.adopted import fakes as made  # noqa: E402
from tests.rmkit.models.adopted.test_readers import item  # noqa: E402

COMMIT = hashlib.sha1(b"a revision").hexdigest()


class Hub:
    """One repository, lab/rm; `cut` names a file whose first download breaks off in the middle."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cut, self.breaks, self.requests = folder, "", 0, []  # type: ignore[var-annotated]
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                hub.requests.append(f"{self.command} {path}")
                if "lab/gated" in path:
                    return self.send(403, b"{}", body, **{"X-Error-Code": "GatedRepo"})
                if "lab/rm" not in path:
                    return self.send(404, b"{}", body, **{"X-Error-Code": "RepoNotFound"})
                names = sorted(one.name for one in hub.folder.iterdir())
                if path.startswith("/api/models/"):
                    if "/revision/" in path and path.rsplit("/", 1)[-1] not in ("main", "v1", COMMIT):
                        return self.send(404, b"{}", body, **{"X-Error-Code": "RevisionNotFound"})
                    siblings = [{"rfilename": name} for name in names]
                    info = {"id": "lab/rm", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
                    if "/tree/" in path:
                        info = [self.entry(name) for name in names]  # type: ignore[assignment]
                    return self.send(200, json.dumps(info).encode(), body)
                name = path.rsplit("/", 1)[-1]
                if name not in names:
                    return self.send(404, b"", body, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
                content = (hub.folder / name).read_bytes()
                facts = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
                if body and name == hub.cut and not hub.breaks:
                    hub.breaks += 1
                    self.send_response(200)
                    for key, value in {**facts, "Content-Length": str(len(content))}.items():
                        self.send_header(key, value)
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    return None
                if start:
                    facts["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                return self.send(206 if start else 200, content[start:], body, **facts)

            def entry(self, name: str) -> dict[str, Any]:
                content = (hub.folder / name).read_bytes()
                return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

            def send(self, status: int, content: bytes, body: bool, **headers: str) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(fakes: dict[str, made.Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub.constants as constants

    folder = Path(shutil.copytree(fakes["scalar"].folder, tmp_path / "repository"))
    card = "---\nlicense: apache-2.0\nbase_model: lab/base\ntags: [reward-model]\n---\n# A model\n"
    (folder / "README.md").write_text(card)
    hub = Hub(folder)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def test_an_id_is_resolved_downloaded_and_adopted_once(
    hub: Hub, fakes: dict[str, made.Fake], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut = "model.safetensors"
    model = load_model("lab/rm")
    assert hub.breaks == 1
    [[score]] = model.score([item("sky", "yes blue")])
    assert score.value == pytest.approx(float(fakes["scalar"].expected("sky", "yes blue")), abs=1e-5)
    folder = find_model("lab/rm@v1")
    source = open_artifact(folder).card["source"]
    assert (source["hub"], source["revision"]) == ("lab/rm", COMMIT)
    assert (source["license"], source["base"]) == ("apache-2.0", "lab/base")
    assert find_model(f"lab/rm@{COMMIT}") == folder
    for name, what in {
        "lab/gated": "is gated: accept its terms",
        "lab/none": "no model lab/none: not a folder, not a stored name, and the Hub has none",
        "lab/rm@v7": "has no revision 'v7'",
    }.items():
        with pytest.raises(ModelError, match=what):
            load_model(name)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    assert load_model(folder).info.fingerprint == model.info.fingerprint  # a resolved revision opens without the Hub
    with pytest.raises(ModelError, match="not in the cache and cannot be downloaded"):
        load_model("lab/other")
