"""Reader `pair`: models that see two responses at once. Both orders are asked, so that the order cannot matter.

    m(a, b)    the model's own margin of the first response over the second
    P(a > b) = sigmoid((m(a, b) - m(b, a)) / 2)

Three forms, by the profile: states at three marks of an encoder with a head over (question, response) (PairRM); the
logits of two tokens of a language model behind a frame that shows both responses (pair-preference); the same of an
encoder with a decoder (SteamSHP). Compares only: scores are win logits within their list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rmkit.devices import chosen
from rmkit.errors import ConfigError, DataError, ModelError, RmkitError
from rmkit.models.adopted.head import build_head
from rmkit.models.adopted.headed import Opening, longest
from rmkit.models.adopted.network import (
    CAUSAL,
    HeadedTrunk,
    VocabularyRows,
    open_config,
    open_tokenizer,
    open_trunk,
    pad_id_of,
)
from rmkit.models.adopted.text import AdoptedChat, question_of
from rmkit.models.transformer.checkpoint import Checkpoint, load_strictly
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.types import (
    Candidates,
    Comparison,
    Completion,
    Message,
    ModelInfo,
    Score,
    score_by_comparison,
    sigmoid,
)

YARDSTICK = Completion((Message("assistant", "I am not sure."),))  # golden scores are margins over this reply
MAX_BATCH_TOKENS = 8192


class PairModel:
    """Completed by `margins_of`. Not pointwise."""

    def __init__(self, opening: Opening, tokenizer: Any, config: Any) -> None:
        self.info: ModelInfo = opening.info
        self.profile = opening.profile
        self.tokenizer = tokenizer
        self.temperature = opening.temperature
        self.max_batch_tokens = int(opening.options.get("max_batch_tokens", MAX_BATCH_TOKENS))
        self.precision = opening.options.get("precision", "fp32")
        limit = longest(opening.profile, config, tokenizer)
        self.text = AdoptedChat(tokenizer, opening.profile, max_length=limit, pad_id=pad_id_of(config))

    def encode(self, item: Candidates) -> tuple[int, ...]:
        """The ids of a prompt with two completions in their order. Raises DataError where they cannot be shown."""
        raise NotImplementedError

    def margins_of(self, texts: Sequence[tuple[int, ...]]) -> list[float]:
        """[n] the margins of the first responses over the second."""
        raise NotImplementedError

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """See `RewardModel`. Each pair is asked in both orders."""
        if any(len(item.completions) != 2 for item in batch):
            raise ValueError("a comparison takes two completions")
        margins = self._margins(batch)
        return [
            Comparison.failed(str(one))
            if isinstance(one, Exception)
            else Comparison(
                sigmoid((one[0] - one[1]) / 2 / self.temperature),
                swap_gap=abs(sigmoid(one[0]) + sigmoid(one[1]) - 1),
            )
            for one in margins
        ]

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """See `score_by_comparison`."""
        return score_by_comparison(self.compare, batch)

    def golden_scores(self, batch: Sequence[Candidates], *, precision: str = "fp32") -> list[list[Score]]:
        """Margins of each completion over one fixed reply: what must come out again on any machine."""
        pairs = [item.of(one, YARDSTICK) for item in batch for one in item.completions]
        margins = iter(self._margins(pairs))
        return [[_margin(next(margins)) for _ in item.completions] for item in batch]

    def _margins(self, pairs: Sequence[Candidates]) -> list[tuple[float, float] | Exception]:
        """Per pair the margins of its first response when it is shown first, and of the other when that is."""
        encoded: list[list[tuple[int, ...]] | Exception] = []
        for pair in pairs:
            first, second = pair.completions
            try:
                encoded.append([self.encode(pair.of(first, second)), self.encode(pair.of(second, first))])
            except (RmkitError, UnicodeError) as error:
                encoded.append(error)
        texts = [text for one in encoded if not isinstance(one, Exception) for text in one]
        margins = iter(self.margins_of(texts) if texts else ())
        return [one if isinstance(one, Exception) else (next(margins), next(margins)) for one in encoded]


class MarkedPair(PairModel):
    """An encoder that reads the states at three marks: of the question and of the two responses."""

    def __init__(self, opening: Opening) -> None:
        config = open_config(opening.source)
        super().__init__(opening, open_tokenizer(opening.source), config)
        at = opening.profile.read.at
        if not isinstance(at, Mapping) or len(at.get("match", ())) != 3:
            raise ConfigError("reader pair takes read.at = {match = [QUESTION, FIRST, SECOND]}, or text.frame")
        self.marks = [self.text.token_id(one) for one in at["match"]]
        checkpoint = Checkpoint.of(opening.source.folder)
        self.head, of_head = build_head(opening.profile.head, checkpoint)
        options = {"dtype": torch.float32}
        trunk, self.loading = open_trunk(opening.profile, checkpoint, config, options, of_head=of_head)
        self.module = RewardModule(HeadedTrunk(trunk, nn.Identity()).eval().to(chosen(opening.device))).eval()
        width = next(layer for layer in self.head.layers if isinstance(layer, nn.Linear)).weight.shape[1]
        if width != 2 * trunk.config.hidden_size:
            raise ModelError(
                f"the head takes {width} numbers, expected two states of {trunk.config.hidden_size}: the question's "
                "and a response's"
            )

    def encode(self, item: Candidates) -> tuple[int, ...]:
        parts = [question_of(item.prompt), *(_answer(one) for one in item.completions)]
        total = self.text.truncation.max_length
        source_limit = self.profile.text.max_source_tokens or total // 3
        before, after = self.text._special_ends
        ids: list[int] = []
        for number, (mark, part) in enumerate(zip(self.marks, parts, strict=True)):
            assert mark is not None
            limit = source_limit if number == 0 else (total - source_limit) // 2
            room = limit - len(before) - len(after) - 1
            ids += [*before, mark, *self._ids(part, room, left=number == 0 and self.profile.text.cut == "left"), *after]
        return tuple(ids)

    def _ids(self, text: str, room: int, *, left: bool) -> list[int]:
        literal = self.text._literal
        tokenizer = literal if literal.needed_for([Message("user", text)]) else self.tokenizer
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        if len(ids) > room and self.profile.text.cut == "refuse":
            raise DataError(f"a text takes {len(ids)} tokens and may take {room}")
        return ids[-room:] if left else ids[:room]

    @torch.inference_mode()
    def margins_of(self, texts: Sequence[tuple[int, ...]]) -> list[float]:
        reads = [[tuple(text.index(mark) for mark in self.marks if mark is not None)] for text in texts]
        result = self.module.outputs(
            [[text] for text in texts], reads=reads, max_batch_tokens=self.max_batch_tokens, precision=self.precision
        )
        margins = []
        for [states] in result:
            question, first, second = (torch.tensor(one) for one in states)
            left, right = (self.head(torch.cat([question, one])[None])[0] for one in (first, second))
            margins.append(float((left - right).mean()))
        return margins


class FramedPair(PairModel):
    """A language model that is shown both responses in one user turn and names one of them by its next token."""

    def __init__(self, opening: Opening) -> None:
        import transformers

        config = open_config(opening.source)
        super().__init__(opening, open_tokenizer(opening.source), config)
        choices = opening.profile.read.choices
        if len(choices) != 2:
            raise ConfigError(f"reader pair with text.frame takes two read.choices, got {len(choices)}")
        self.ids = [_choice(self.tokenizer, one) for one in choices]
        names = Checkpoint.of(opening.source.folder).tensors
        self.decoder = bool(getattr(config, "is_encoder_decoder", False))
        auto = "AutoModelForSeq2SeqLM" if self.decoder else CAUSAL
        model, self.loading = load_strictly(
            getattr(transformers, auto), opening.source.folder, names=names, dtype=torch.float32
        )
        self.model = model.eval().to(chosen(opening.device))
        if not self.decoder:
            rows = model.get_output_embeddings()
            cap = getattr(config, "final_logit_softcapping", None)
            head = VocabularyRows(rows.weight.detach()[self.ids].float(), None, cap=cap, factor=1.0)
            if model.config.pad_token_id is None:
                model.config.pad_token_id = 0
            self.module = RewardModule(HeadedTrunk(model.base_model, head.to(model.device)).eval()).eval()

    def encode(self, item: Candidates) -> tuple[int, ...]:
        text = self.profile.text
        first, second = map(_answer, item.completions)
        turns = [*item.prompt, *item.completions[0].messages, *item.completions[1].messages]
        literal = self.text._literal if self.text._literal.needed_for(turns) else None
        tokenizer = literal or self.tokenizer
        if text.inner:
            messages = [{"role": one.role, "content": one.content} for one in item.prompt]
            question = str(self.tokenizer.apply_chat_template(messages, chat_template=text.inner, tokenize=False))
        else:
            question = question_of(item.prompt)
        parts = {"{q}": question, "{a}": first, "{b}": second}
        if text.newlines == "space":
            parts = {name: " ".join(part.split("\n")) for name, part in parts.items()}
        shown = text.frame
        for name in parts:
            shown = shown.replace(name, f"\0{name[1]}\0")
        for name, part in parts.items():
            shown = shown.replace(f"\0{name[1]}\0", part)
        if text.template != "none":
            shown = str(
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": shown}],
                    chat_template=self.text.template,
                    tokenize=False,
                    add_generation_prompt=text.generation_prompt,
                )
            )
        chat = self.text._for_control_tokens if literal else self.text
        ids, _ = chat._tokenize(shown)
        if text.special == "none" and ids[:1] == [self.tokenizer.bos_token_id]:  # the one that the template wrote
            ids = ids[1:]
        if len(ids) > self.text.truncation.max_length:
            raise DataError(self.text._too_long(len(ids)))
        return tuple(ids)

    @torch.inference_mode()
    def margins_of(self, texts: Sequence[tuple[int, ...]]) -> list[float]:
        if not self.decoder:
            rows = [[text] for text in texts]
            result = self.module.outputs(rows, max_batch_tokens=self.max_batch_tokens, precision=self.precision)
            return [first - second for [[[first, second]]] in result]
        start = torch.tensor([[self.model.config.decoder_start_token_id]], device=self.model.device)
        margins = []
        for text in texts:
            ids = torch.tensor([text], device=self.model.device)
            logits = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=start).logits[
                0, -1
            ]
            margins.append(float(logits[self.ids[0]] - logits[self.ids[1]]))
        return margins


def open_model(opening: Opening) -> PairModel:
    """The model. Raises ConfigError where the profile says neither marks nor a frame."""
    return FramedPair(opening) if opening.profile.text.frame else MarkedPair(opening)


def _answer(completion: Completion) -> str:
    if len(completion.messages) != 1 or not completion.text.strip():
        raise DataError("a response must be one assistant turn with text")
    return completion.messages[0].content


def _choice(tokenizer: Any, name: str) -> int:
    """The id of a choice's text. Raises ModelError where it is several tokens."""
    ids = tokenizer(name, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ModelError(f"read.choices: {name!r} is {len(ids)} tokens, expected one")
    return int(ids[0])


def _margin(one: tuple[float, float] | Exception) -> Score:
    return Score.failed(str(one)) if isinstance(one, Exception) else Score((one[0] - one[1]) / 2)
