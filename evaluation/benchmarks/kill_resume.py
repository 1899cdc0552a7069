"""A command killed (SIGKILL) at random moments and started again until it ends: what did it ask for twice?"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence


def kill_and_resume(
    command: Sequence[str],
    requests: Counter[str],
    stored: Callable[[], set[str]],
    *,
    kills: int,
    longest_s: float = 0.4,
    environment: Mapping[str, str] | None = None,
) -> tuple[dict[str, int], str]:
    """Counts of calls, and what the last run printed.

    `requests` is how often the endpoint was asked for each thing so far, `stored` gives the things whose answers are in
    the ledger: one of these that is asked for again would be paid twice. Calls in flight at a kill, or whose answer
    was on its way to the disk, are lost to both sides. Raises CalledProcessError where the command fails by itself.
    """
    draw = random.Random(0)
    done = paid_twice = 0
    while True:
        known, before = stored(), requests.copy()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        if done < kills:
            while requests == before and process.poll() is None:  # it is on its way
                time.sleep(0.01)
            time.sleep(draw.uniform(0.05, longest_s))
            process.send_signal(signal.SIGKILL)
            done += process.wait() == -signal.SIGKILL
        out = process.communicate()[0]
        paid_twice += len({name for name in before if requests[name] > before[name]} & known)
        if process.returncode == 0:
            break
        if process.returncode != -signal.SIGKILL:
            raise subprocess.CalledProcessError(process.returncode, command)
    counts = {
        "kills": done,
        "calls_needed": len(requests),
        "calls_made": sum(requests.values()),
        "asked_again_after_loss_in_flight": sum(requests.values()) - len(requests) - paid_twice,
        "stored_answers_paid_again": paid_twice,
    }
    return counts, out
