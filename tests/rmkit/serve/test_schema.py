"""schemathesis against the OpenAPI document of a running service: no answer is a 5xx, and what is promised is kept."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

schemathesis = pytest.importorskip("schemathesis")
uvicorn = pytest.importorskip("uvicorn")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rmkit.serve.http.app import create_app  # noqa: E402
from rmkit.serve.settings import ServeSettings  # noqa: E402
from tests.rmkit.serve.serving import Steered  # noqa: E402


@pytest.fixture(scope="module")
def document() -> Iterator[Any]:
    """The service's own document. Groups that are never whole wait for a short deadline only."""
    app = create_app({"steered": Steered()}, ServeSettings(timeout_s=0.5, unscored_reward=0.0))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield schemathesis.openapi.from_url(f"http://127.0.0.1:{bound.getsockname()[1]}/openapi.json")
        finally:
            server.should_exit = True
            thread.join()


def tried(document: Any, *, examples: int, where: str = "", checks: list[Any] | None = None) -> int:
    """How many operations whose path begins with `where` were tried, each with generated requests."""
    unhurried = settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    operations = [one for one in (found.ok() for found in document.get_all_operations()) if one.path.startswith(where)]
    for operation in operations:

        @unhurried
        @given(case=operation.as_strategy())
        def try_one(case: Any) -> None:
            case.call_and_validate(**({"checks": checks} if checks else {}))

        try_one()
    return len(operations)


def test_no_score_request_is_a_server_error(document: Any) -> None:
    assert tried(document, examples=5, where="/rmkit/v1/score", checks=[not_a_server_error]) == 1


@pytest.mark.slow
def test_no_request_is_a_server_error(document: Any) -> None:
    assert tried(document, examples=200, checks=[not_a_server_error]) > 15


@pytest.mark.slow
@pytest.mark.parametrize("where", ["/rmkit", "/healthz", "/readyz", "/metrics"])
def test_native_answers_are_as_documented(document: Any, where: str) -> None:
    """Status, content type, headers and body of every answer are those of the document."""
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance, not_a_server_error]
    assert tried(document, examples=100, where=where, checks=checks)
