"""A process that encodes parts: `python -m rmkit.training.tokens.worker JOB` reads their numbers, one a line."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from rmkit.errors import RmkitError


def main(path: str) -> None:
    """Answer every number with `done`, or with a line that says what went wrong, until the input ends."""
    job = pickle.loads(Path(path).read_bytes())  # written by the process that started this one
    for line in sys.stdin:
        try:
            job.encode(int(line))
            print("done", flush=True)
        except (RmkitError, OSError) as error:
            print(str(error).replace("\n", " "), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
