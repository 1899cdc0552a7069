"""`rmkit label serve` as a process that a benchmark starts, kills and measures (Linux: /proc)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx


class Server:
    """The studio over the home folder, on a free port of loopback; `down_s` holds how long each restart took.

    `folder` is where it runs and looks for Streamlit's own settings (default: here); `options` go to the command.
    """

    def __init__(self, home: Path, *, folder: Path | None = None, options: Sequence[str] = ()) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._home, self._folder, self._options = home, folder, options
        self.down_s: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when the API answers."""
        command = [sys.executable, "-m", "rmkit", "label", "serve", "--port", str(self.port), *self._options]
        environment = {**os.environ, "RMKIT_HOME": str(self._home), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, env=environment, cwd=self._folder, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.url}/api/projects", timeout=5)
                return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise RuntimeError("the studio did not start within 120 s")

    def kill(self) -> None:
        """End it without warning."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        down = time.monotonic()
        self.start()
        self.down_s.append(time.monotonic() - down)

    def memory_mb(self) -> float:
        """Resident memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_s(self) -> float:
        """Processor time that the process has used so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
