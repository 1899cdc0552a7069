"""The studio from Python, for leads and for annotators that are programs.

    with StudioClient("http://127.0.0.1:8501", token=TOKEN) as client:
        client.create_project("hh", data="hh@v2", task="pairwise")
        for answer in client.answers("hh", rater="anna"):
            client.review("hh", answer["event"], "accepted")
        client.commit("hh")

Each call is one of the REST API (`GET /api/openapi.json` describes them all), under the same checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import httpx

from rmkit.errors import RmkitError

PAGE = 500  # answers a call


class StudioError(RmkitError):
    """What the studio refused, in its words; `status` is HTTP's."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class StudioClient:
    """A studio at `url`, as the person whose token this is. Thread-safe."""

    def __init__(self, url: str, *, token: str, timeout_s: float = 60.0) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        """Any call of the API. Raises StudioError where it is refused, or the studio cannot be reached."""
        params = {name: value for name, value in query.items() if value is not None}
        try:
            response = self._http.request(method, f"/api{path}", json=body, params=params)
        except httpx.HTTPError as error:
            raise StudioError(f"{self._http.base_url} cannot be reached: {error}", 0) from error
        try:
            values = response.json()
        except ValueError as error:
            raise StudioError(
                f"{self._http.base_url} is no studio: its answer is no JSON", response.status_code
            ) from error
        if response.is_error:
            raise StudioError(str(values.get("error", values)), response.status_code)
        return values

    # For leads

    def projects(self) -> list[dict[str, Any]]:
        """Projects that this person takes part in."""
        return list(self.call("GET", "/projects"))

    def project(self, name: str) -> dict[str, Any]:
        """Task, progress, pace, members and rules."""
        return dict(self.call("GET", f"/projects/{name}"))

    def create_project(
        self,
        name: str,
        *,
        data: str,
        task: str | Mapping[str, Any] = "pairwise",
        gold: str | None = None,
        queued: bool = False,
    ) -> dict[str, Any]:
        """`task` is a shipped task's name or a whole definition; `data` and `gold` are dataset versions. With `queued`
        the items are what is queued for the project, no row of the data."""
        body = {"name": name, "data": data, "task": task, "gold": gold, "queued": queued}
        return dict(self.call("POST", "/projects", body))

    def change_task(self, name: str, task: Mapping[str, Any], *, why: str = "") -> str:
        """The id of the new version."""
        return str(self.call("PUT", f"/projects/{name}/task", {"task": task, "why": why})["id"])

    def answers(
        self, name: str, *, rater: str | None = None, verdict: str | None = None, item: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Valid answers with their texts, oldest first."""
        skip = 0
        while True:
            page = self.call(
                "GET",
                f"/projects/{name}/answers",
                rater=rater,
                verdict=verdict,
                item=item,
                skip=skip,
                limit=PAGE,
            )
            yield from page["answers"]
            skip += PAGE
            if skip >= page["total"]:
                return

    def review(self, name: str, event: str, decision: str, comment: str = "") -> None:
        """`decision` is accepted, returned or commented; the last two need a comment."""
        self.call("POST", f"/projects/{name}/reviews", {"event": event, "decision": decision, "comment": comment})

    def agreement(self, name: str) -> dict[str, Any]:
        """Krippendorff's alpha by question on two levels, agreement by label, the items on which people differ."""
        return dict(self.call("GET", f"/projects/{name}/agreement"))

    def people(self, name: str) -> list[dict[str, Any]]:
        """How each person works."""
        return list(self.call("GET", f"/projects/{name}/people"))

    def commit(self, name: str, *, dataset: str | None = None, merge: bool = False) -> str:
        """The labels as a dataset version, NAME@vN."""
        body = {"dataset": dataset, "merge": merge}
        return str(self.call("POST", f"/projects/{name}/commit", body)["version"])

    def invite(self, name: str) -> str:
        """The token of a new annotator."""
        return str(self.call("POST", "/people", {"name": name})["token"])

    def webhooks(self, name: str) -> list[dict[str, Any]]:
        """Those of a project, and how their deliveries are."""
        return list(self.call("GET", f"/projects/{name}/webhooks"))

    def add_webhook(self, name: str, url: str, *, events: Sequence[str] | None = None) -> dict[str, Any]:
        """A new webhook, for all events where none is named; its `secret` is shown this once."""
        body = {"url": url} | ({} if events is None else {"events": list(events)})
        return dict(self.call("POST", f"/projects/{name}/webhooks", body))

    def remove_webhook(self, name: str, id: str) -> None:
        """Nothing is sent there any more."""
        self.call("POST", f"/projects/{name}/webhooks/remove", {"id": id})

    def resume_webhook(self, name: str, id: str) -> None:
        """Try again now."""
        self.call("POST", f"/projects/{name}/webhooks/resume", {"id": id})

    # For annotators

    def next(self, name: str, *, ahead: int = 1) -> list[dict[str, Any]]:
        """Items to judge now, responses in the order to show."""
        return list(self.call("GET", f"/projects/{name}/next", ahead=ahead))

    def answer(self, name: str, id: str, answer: Mapping[str, Any], **times_ms: int) -> str:
        """The event of the answer; the same answer again is the same event."""
        return str(self.call("POST", f"/projects/{name}/answers/{id}", {"answer": answer, **times_ms})["event"])
