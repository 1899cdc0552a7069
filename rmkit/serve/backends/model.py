"""A reward model whose weights sit in another server, behind the same front: exact, because only ids go over.

Texts are rendered, truncated and turned into ids here, by the model's own rules. The server gives the raw numbers of
the head at the tokens read, and what rmkit makes of these is the model's own code, as if the network were here. Golden
scores are replayed through the server when it is connected, so other weights, a sigmoid or another head are refused.

Explicit and process models can be served so, and adopted ones that read outputs of one head or the logits of listed
tokens. Where a text's number is read at a token before the last, the ids behind it are not sent: the same to a causal
model, and servers read the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import httpx

from rmkit import plugins
from rmkit.chat.encode import Chat
from rmkit.errors import ModelError, RmkitError
from rmkit.models import find_model
from rmkit.models.adopted import model as adopted
from rmkit.models.artifact.folder import Artifact, Precision, open_artifact
from rmkit.models.artifact.golden import verify
from rmkit.models.transformer import explicit, process
from rmkit.models.transformer.artifact import open_with_chat, verify_ids
from rmkit.models.transformer.engine import TransformerModel
from rmkit.models.transformer.packing import Ids
from rmkit.types import Candidates, Comparison, ModelInfo, Score, compare_by_score

TIMEOUT_S = 120.0
MAX_TEXTS = 256  # a request; the server makes its own batches
MAX_TOKENS = 65_536  # a request: where every token has numbers, an answer stays below a few megabytes
READERS = ("column", "mixture", "token")


class Server(Protocol):
    """What holds the weights, made of an httpx client and `in_steps`: whether numbers are read at every step of a text
    or once, at its end."""

    in_steps: bool

    def check(self) -> None:
        """Raises ModelError where it was started so that scores would be wrong unseen."""

    def rows(self, ids: Sequence[Ids], reads: Sequence[Ids]) -> list[list[list[float]]]:
        """[B][S] the head's raw outputs at the S tokens read of each text. Raises httpx.HTTPError, ValueError."""


class BackendError(RmkitError):
    """A server gave no numbers, or others than those asked for; says no text of theirs."""


class ServedModule:
    """What `RewardModule` is to a model, with the network in a server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def eval(self) -> ServedModule:
        """Itself: a server does not train."""
        return self

    def outputs(
        self, rows: Sequence[Sequence[Ids]], *, reads: Sequence[Sequence[Ids]] | None = None, **_: Any
    ) -> list[list[list[Any]]]:
        """As `RewardModule.outputs`; budget and precision are the server's own.

        Raises BackendError where it gives no numbers, or others than it was asked for.
        """
        texts = [tuple(ids) for row in rows for ids in row]
        places = [(len(ids) - 1,) for ids in texts] if reads is None else [tuple(one) for row in reads for one in row]
        if not self._server.in_steps:
            texts = [ids[: place[-1] + 1] for ids, place in zip(texts, places, strict=True)]
        results: list[list[Any]] = []
        for start, end in _requests([len(ids) for ids in texts]):
            try:
                results += _numbers(self._server.rows(texts[start:end], places[start:end]), places[start:end])
            except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
                raise BackendError(f"the model's server gave no scores ({type(error).__name__})") from error
        remaining = iter(results)
        return [list(islice(remaining, len(row))) for row in rows]


class BackendModel:
    """A reward model that asks a server. Scores are what the model itself would give."""

    problem_type = "regression"  # as in the artifact's config: the dialects ask

    def __init__(self, inner: TransformerModel, *, precision: Precision = "fp32") -> None:
        self.info: ModelInfo = inner.info
        self.chat: Chat = inner.chat
        self.precision = precision  # of the golden scores that must agree
        self._inner = inner

    @classmethod
    def connect(cls, name: str, kind: str, url: str, *, precision: Precision = "fp32") -> BackendModel:
        """The model `name` behind `url`. Raises ModelError where that holds another one, or cannot hold this one."""
        artifact = open_artifact(find_model(name))
        make: Callable[..., Server] = plugins.resolve("backends", kind)
        server = make(httpx.Client(base_url=url, timeout=TIMEOUT_S), in_steps=artifact.info.kind == "process")
        try:
            server.check()
        except (httpx.HTTPError, ValueError) as error:
            raise ModelError(
                f"{url} does not say how it was started ({type(error).__name__}); is it {kind}?"
            ) from error
        inner = _opened(artifact, ServedModule(server))
        verify_ids(artifact.folder, inner)
        model = cls(inner, precision=precision)
        verify(artifact, model)
        return model

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """[P][N] scores. A server that does not answer leaves all of them unscored, with the reason."""
        try:
            return self._inner.score(batch)
        except BackendError as error:
            return [[Score.failed(str(error))] * len(item.completions) for item in batch]

    def golden_scores(self, batch: Sequence[Candidates], **_: Any) -> list[list[Score]]:
        return self.score(batch)

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch, p_first=self._inner.p_first)


def _opened(artifact: Artifact, module: Any) -> TransformerModel:
    """The artifact's model around a module. Raises ModelError for one whose numbers no such server can give."""
    match artifact.card["model"]:
        case "adopted":
            profile = adopted.profile_in(artifact)
            head, read = profile.head, profile.read
            if read.kind not in READERS or head.gate or head.pooling != "token" or profile.text.segments != 1:
                raise ModelError(
                    f"{artifact.folder}: a server gives the outputs of one head at tokens of one text; this model is "
                    f"read by {read.kind}{' with a gate' if head.gate else ''}, so serve it without --backend"
                )
            source = adopted.source_of(artifact)
            result: TransformerModel = adopted.open_model(
                source, profile, artifact.info, card=artifact.card, module=module
            )
            return result
        case "explicit" | "process" as kind:
            around = {"explicit": explicit.around, "process": process.around}[kind]
            return around(*open_with_chat(artifact.folder), module)
        case kind:
            raise ModelError(f"{artifact.folder} is of the kind {kind}, whose weights no other server can hold")


def _numbers(rows: Sequence[Sequence[Sequence[float]]], reads: Sequence[Ids]) -> list[list[Any]]:
    """[B][S] numbers as `RewardModule.outputs` has them. Raises ValueError where the rows are not those at `reads`."""
    if [len(one) for one in rows] != [len(read) for read in reads]:
        raise ValueError("the server gave rows for other texts or other tokens")
    return [[[float(x) for x in row] if len(row) > 1 else float(row[0]) for row in one] for one in rows]


def _requests(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and end of the texts of each request."""
    start = total = 0
    for at, length in enumerate(lengths):
        if at > start and (at - start == MAX_TEXTS or total + length > MAX_TOKENS):
            yield start, at
            start, total = at, 0
        total += length
    if lengths:
        yield start, len(lengths)
