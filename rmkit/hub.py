"""What the Hugging Face Hub answers, said in a line: a refused token, a gated or absent repository, no connection.

No message holds a token: what the client says is searched for it.
"""

from __future__ import annotations


def fault(error: Exception, at: str) -> str:
    """The line for an exception of huggingface_hub about the repository `at`: what was seen, and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, GatedRepoError):
        return f"{at} is gated: accept its terms on the Hub, then log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        repository, _, revision = at.partition("@")
        return f"{repository} has no revision {revision!r}"
    if isinstance(error, RepositoryNotFoundError):
        return f"the Hub has no {at} that this token may see (HF_TOKEN, `hf auth login`)"
    if status == 401:
        return f"{at}: the Hub refuses the token (401); log in anew with `hf auth login`, or mend or unset HF_TOKEN"
    if status == 403:
        return f"{at}: this token may not write there (403); take one with write access (HF_TOKEN, `hf auth login`)"
    return f"{at}: {without_token(_first_line(error))}"


def without_token(text: str) -> str:
    """The text with the token that is in use blotted out."""
    from huggingface_hub import get_token

    token = get_token()
    return text.replace(token, "***") if token else text


def _first_line(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    text = str(cause) or str(error)
    return text.splitlines()[0] if text else type(cause).__name__
