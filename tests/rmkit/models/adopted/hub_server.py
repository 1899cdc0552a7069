"""A server on this machine that answers as the Hub does: revisions, downloads with ranges, gated and absent
repositories, tokens, new repositories, uploads by preupload, LFS and commit. Nothing of it is remembered."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = hashlib.sha1(b"a revision").hexdigest()
WRONG, READ_ONLY, WRITE = "hf_wrongWrongWrong", "hf_readReadRead", "hf_writeWriteWrite"


@dataclass
class Repository:
    """What was pushed: `files` by path, and whether everybody may read it."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


class Hub:
    """`folder` is the model lab/rm. `cut` names a file whose first transfer, down or up, breaks off in the middle.

    Without a token reading is allowed; WRONG is refused everywhere, only WRITE may write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.cut, self.breaks = folder, "", 0
        self.requests: list[str] = []
        self.repositories: dict[str, Repository] = {}  # "models/lab/mine"
        self.large: dict[str, bytes] = {}  # LFS objects by SHA-256
        handler = type("Bound", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def use(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """Point huggingface_hub at this server; its chunk store, which has a protocol of its own, is off."""
        import huggingface_hub.constants as constants

        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None: ...

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token == WRONG:
            what = "Invalid credentials in Authorization header"
            return self.send(401, {"error": what}, **{"X-Error-Message": what})
        if self.command in ("POST", "PUT"):
            return self.write(path, token)
        return self.read(path)

    def read(self, path: str) -> None:
        hub = self.hub
        for name, repository in hub.repositories.items():
            if path.rstrip("/") == f"/api/{name}" or path.startswith(f"/api/{name}/revision/"):
                siblings = [{"rfilename": one} for one in repository.files]
                info = {"id": name.partition("/")[2], "sha": COMMIT, "siblings": siblings, "tags": []}
                return self.send(200, info | {"private": repository.private})
        if "lab/gated" in path:
            return self.send(403, {}, **{"X-Error-Code": "GatedRepo"})
        if "lab/rm" not in path:
            return self.send(404, {}, **{"X-Error-Code": "RepoNotFound"})
        names = sorted(one.name for one in hub.folder.iterdir())
        if path.startswith("/api/models/"):
            if "/revision/" in path and path.rsplit("/", 1)[-1] not in ("main", "v1", COMMIT):
                return self.send(404, {}, **{"X-Error-Code": "RevisionNotFound"})
            if "/tree/" in path:
                return self.send(200, [self.entry(name) for name in names])
            siblings = [{"rfilename": name} for name in names]
            return self.send(200, {"id": "lab/rm", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        name = path.rsplit("/", 1)[-1]
        if name not in names:
            return self.send(404, b"", **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        return self.download(name)

    def download(self, name: str) -> None:
        content = (self.hub.folder / name).read_bytes()
        facts = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if self.command == "GET" and name == self.hub.cut and not self.hub.breaks:
            self.hub.breaks += 1
            self.send_response(200)
            for key, value in {**facts, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        if start:
            facts["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206 if start else 200, content[start:], **facts)

    def entry(self, name: str) -> dict[str, Any]:
        content = (self.hub.folder / name).read_bytes()
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def write(self, path: str, token: str) -> None:
        hub = self.hub
        if path.startswith("/lfs/"):  # signed addresses: no token goes there
            if hub.cut and not hub.breaks:
                hub.breaks += 1
                self.rfile.read(int(self.headers["Content-Length"]) // 2)
                self.close_connection = True
                self.connection.close()
                return None
            content = self.body()
            hub.large[path.removeprefix("/lfs/")] = content
            return self.send(200, b"")
        content = self.body()
        if path == "/api/validate-yaml":
            return self.send(200, {"warnings": [], "errors": []})
        if token != WRITE:
            return self.send(403, {"error": "no write access"})
        if path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
            if name in hub.repositories:
                return self.send(409, {"error": "You already created this repo", "url": f"{hub.url}/{name}"})
            hub.repositories[name] = Repository(
                private=asked.get("visibility") == "private" or bool(asked.get("private"))
            )
            return self.send(200, {"url": f"{hub.url}/{name.removeprefix('models/')}"})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}", "header": {}}}}
                | ({"actions": None} if one["oid"] in hub.large else {})
                for one in json.loads(content)["objects"]
            ]
            objects = [{key: value for key, value in one.items() if value is not None} for one in objects]
            return self.send(200, {"transfer": "basic", "objects": objects})
        name = next((name for name in hub.repositories if path.startswith(f"/api/{name}/")), "")
        if not name:
            return self.send(404, {}, **{"X-Error-Code": "RepoNotFound"})
        if "/preupload/" in path:
            files = [
                {"path": one["path"], "uploadMode": mode_of(one["path"]), "shouldIgnore": False}
                for one in json.loads(content)["files"]
            ]
            return self.send(200, {"files": files})
        return self.commit(name, [json.loads(line) for line in content.splitlines() if line])

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repository = self.hub.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.large[value["oid"]]
        repository.commits += 1
        url = f"{self.hub.url}/{name}/commit/{COMMIT}"
        self.send(200, {"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def body(self) -> bytes:
        """What the request carries, with a length or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, status: int, content: Any, **headers: str) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def mode_of(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".parquet", ".bin", ".npz")) else "regular"
