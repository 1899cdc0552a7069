"""Who runs this process: the author and actor of what it writes."""

from __future__ import annotations

import getpass


def user_name() -> str:
    """The login name; 'unknown' where the system has none, as in a bare container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"
