"""A request that is not answered, and why: the one error that every route turns into its dialect's own form."""

from __future__ import annotations

from rmkit.errors import RmkitError


class HttpError(RmkitError):
    """`status` is the HTTP status: 400 senseless, 401/403 not allowed, 404 no such model, 409 conflict, 413 too large,
    429 too much at once, 503 going down, 504 past its deadline. `retry_after_s` is set where trying again may help.
    """

    def __init__(self, status: int, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After in whole seconds, at least one, where it applies."""
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(max(1, round(self.retry_after_s)))}
