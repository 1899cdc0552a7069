"""Reader `remote`: a model whose own Python code runs, once somebody has allowed exactly that code.

The last resort: for trunks that transformers does not know. Texts go through one by one, without padding, since nothing
is known of what such code does with a batch. The number is the output of the name `read.field`, or the last of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rmkit.chat.encode import Encoded
from rmkit.devices import chosen
from rmkit.errors import ModelError
from rmkit.models.adopted.headed import Opening, column_of, longest, scaling
from rmkit.models.adopted.network import open_tokenizer
from rmkit.models.adopted.profile import Profile
from rmkit.models.adopted.source import Source
from rmkit.models.adopted.text import AdoptedChat
from rmkit.models.scoring import finite_score
from rmkit.models.transformer.engine import TransformerModel
from rmkit.types import Score


class RemoteModel(TransformerModel):
    """Somebody's class behind `AutoModel` or `AutoModelForSequenceClassification`, whatever its auto_map offers."""

    def __init__(self, opening: Opening) -> None:
        profile, source = opening.profile, opening.source
        check_consent(source, profile)
        self.model = _loaded(source).eval().to(chosen(opening.device))
        tokenizer = open_tokenizer(source)
        config = self.model.config
        pad_id = getattr(config, "pad_token_id", None)
        chat = AdoptedChat(tokenizer, profile, max_length=longest(profile, config, tokenizer), pad_id=pad_id)
        super().__init__(chat, opening.info, temperature=opening.temperature, **opening.options)
        self.profile = profile
        self.scaled = scaling(profile, source)

    @torch.inference_mode()
    def outputs(self, rows: Sequence[Sequence[Encoded]]) -> list[list[Any]]:
        """[P][N] the named output of each text."""
        return [[self._output(one) for one in row] for row in rows]

    def read(self, output: Sequence[float], encoded: Encoded) -> Score:
        return finite_score(self.scaled(column_of(output, self.profile.read.column)))

    def _output(self, encoded: Encoded) -> list[float]:
        ids = torch.tensor([encoded.ids], device=self.model.device)
        result = self.model(input_ids=ids, attention_mask=torch.ones_like(ids))
        field = self.profile.read.field
        try:
            value = (
                getattr(result, field) if hasattr(result, field) else result[int(field) if field.isdigit() else field]
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ModelError(f"{type(self.model).__name__} gives no output {field!r} (read.field)") from error
        if value.ndim == 3:
            value = value[:, -1]
        numbers: list[float] = value.float().reshape(-1).tolist()
        return numbers


def check_consent(source: Source, profile: Profile) -> None:
    """Raises ModelError unless the profile allows the very code that lies in the folder."""
    code = source.code_sha256()
    if not code:
        raise ModelError(f"{source.folder} has no Python file, so there is no custom code to run")
    allowed = profile.model.remote_code
    if not allowed:
        raise ModelError(
            f"{source.name} runs custom code (sha256:{code}); read it in {source.folder}, then: rmkit adopt MODEL "
            "--trust-remote-code"
        )
    if allowed != f"sha256:{code}":
        raise ModelError(
            f"the Python files in {source.folder} are not the ones that were allowed: sha256:{code}, expected "
            f"{allowed}; read them again, then adopt the model again"
        )


def open_model(opening: Opening) -> RemoteModel:
    """The model. Raises ModelError without consent, before anything of it is imported."""
    return RemoteModel(opening)


def _loaded(source: Source) -> Any:
    import transformers

    offered = source.config.get("auto_map") or {}
    names = [
        name for name in ("AutoModelForSequenceClassification", "AutoModel", "AutoModelForCausalLM") if name in offered
    ]
    if not names:
        raise ModelError(f"{source.folder}: its auto_map offers {', '.join(offered) or 'nothing'}, no model to load")
    model, report = getattr(transformers, names[0]).from_pretrained(
        source.folder, trust_remote_code=True, output_loading_info=True, dtype=torch.float32
    )
    if missing := sorted(map(str, report["missing_keys"])):
        raise ModelError(f"{source.folder} lacks the weights {', '.join(missing[:6])}; scores would be random")
    return model
