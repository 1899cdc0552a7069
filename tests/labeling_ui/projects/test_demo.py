"""The demo's link: printed at every start, once the port answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from labeling_ui.projects.demo import LINKS, demo_token
from labeling_ui.projects.people import ForbiddenError, by_token
from rmkit.ledger import Ledger


def test_every_start_has_a_link_and_who_is_signed_in_stays_so(ledger: Ledger) -> None:
    """The first is the account's own; of the later ones the last few open the demo, so that old links end one day."""
    tokens = [demo_token(ledger, "mia") for _ in range(LINKS + 4)]
    assert len(set(tokens)) == len(tokens)
    for token in (tokens[0], *tokens[-LINKS:]):
        assert (by_token(ledger, token).name, by_token(ledger, token).role) == ("mia", "admin")
    with pytest.raises(ForbiddenError):
        by_token(ledger, tokens[1])


@pytest.mark.slow
def test_the_demo_prints_its_link_when_the_port_answers_at_the_second_start_too(home: Path) -> None:
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "rmkit", "label", "demo", "--json", "--port", str(port)]
        environment = {**os.environ, "RMKIT_HOME": str(home)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as demo:
            assert demo.stdout is not None
            try:
                text = demo.stdout.readline()
                assert text, "the demo ended before it said where it is"
                url = json.loads(text)["url"]
                page = httpx.get(url, timeout=30)
            finally:
                demo.kill()
            assert url.startswith(f"http://127.0.0.1:{port}/enter?token=")
            assert (page.status_code, "Work as" in page.text) == (200, True)
