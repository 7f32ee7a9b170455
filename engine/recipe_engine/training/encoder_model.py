"""A reward model on an encoder: it reads a question and an answer as a pair of texts, and a head gives the score."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

from recipe_engine.errors import StageFailed
from recipe_engine.training.text_pairs import PairReader, PairText

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from recipe_engine.contract import Answer
    from recipe_engine.training.layout import Layout
    from recipe_engine.training.rows import Row

_POOLER = "pooler"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class EncoderRewardModel(torch.nn.Module):
    """Maps a pair of texts to a score. The head is always trained, whatever of the encoder is.

    Args:
        language_model: what ``load.encoder`` hands on, or a PEFT model around it.
        tokenizer: of the encoder.

    Attributes:
        language_model: the same.
        pad: id of the padding token.
    """

    def __init__(self, language_model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.language_model = language_model
        self.pad: int = tokenizer.pad_token_id
        self._longest = longest_input(self.plain, tokenizer)
        self._reader = PairReader(tokenizer)
        self._has_types = getattr(self.config, "type_vocab_size", 0) > 1 and self._reader.marks_answers
        for weight in head_parameters(self.plain) if not hasattr(language_model, "peft_config") else ():
            weight.requires_grad_()
        self.eval()

    @property
    def config(self) -> Any:
        """The encoder's."""
        return self.language_model.config

    @property
    def plain(self) -> Any:
        """The model of transformers, without a wrapper around it."""
        model = self.language_model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @property
    def layout(self) -> Layout:
        """How texts lie in memory: no encoder keeps those apart that lie end to end."""
        return "padded"

    @property
    def device(self) -> Any:
        """Where it is."""
        return self.plain.device

    def forward(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Scores of the texts of a batch of :meth:`lay`, (texts,) in float32."""
        given = {name: batch[name] for name in _INPUTS if name in batch}
        with _in_float32(self.plain):
            scores: torch.Tensor = self.plain(**given).logits[:, 0].float()
        return scores

    def texts(self, rows: Sequence[Row]) -> list[PairText]:
        """What it reads of prepared rows.

        Raises:
            StageFailed: where a row is longer than it can read.
        """
        longest = max((len(row.input_ids) for row in rows), default=0)
        if longest > self._longest:
            raise StageFailed(
                f"train: the longest row has {longest} tokens, and this model reads {self._longest} at most.",
                f"Set max_length = {self._longest} in its data table.",
            )
        return [PairText(row.input_ids, row.prompt_length) for row in rows]

    def of_answers(self, answers: Sequence[Answer]) -> list[PairText]:
        """What it reads of a policy's answers, in its own tokens; what is too long is cut."""
        return [self._reader.read_within(answer.question, answer.text, self._longest) for answer in answers]

    def lay(self, texts: Sequence[PairText], pad: int, layout: Layout, *, shared: bool = False) -> dict[str, Any]:
        """Texts as one batch, padded on the right: ids, attention mask and, where the model has them, token types.

        Args:
            texts: what is read.
            pad: id of the padding token.
            layout: padded.
            shared: nothing is shared, as a token's state depends on those after it.

        Returns:
            (texts, longest) each.
        """
        del layout, shared
        rows = [torch.tensor(text.ids, dtype=torch.long) for text in texts]
        types = [(torch.arange(len(text.ids)) >= text.second).long() for text in texts]
        pad_to_longest = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
        batch = {
            "input_ids": pad_to_longest(rows, padding_value=pad),
            "attention_mask": pad_to_longest([torch.ones_like(row) for row in rows]),
        }
        return batch | ({"token_type_ids": pad_to_longest(types)} if self._has_types else {})


def is_classifier(model: Any) -> bool:
    """Whether a model, or what is in its PEFT wrapper, is of transformers' classes for sequence classification."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as KNOWN

    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = type(plain.config)
    return kind in KNOWN and isinstance(plain, KNOWN[kind])


def head_modules(model: Any) -> list[str]:
    """Names of the modules that make a score of an encoder's states: whatever is beside the encoder, and its pooler.

    Args:
        model: of transformers' classes for sequence classification.
    """
    prefix = model.base_model_prefix
    children = [
        name for name, child in model.named_children() if name != prefix and any(True for _ in child.parameters())
    ]
    has_pooler = getattr(model.base_model, _POOLER, None) is not None
    return sorted([*children, *([f"{prefix}.{_POOLER}"] if has_pooler else [])])


def head_parameters(model: Any) -> list[Any]:
    """The weights of :func:`head_modules`."""
    return [weight for name in head_modules(model) for weight in model.get_submodule(name).parameters()]


def longest_input(model: Any, tokenizer: Any) -> int:
    """Tokens that a model can read at most: rows of its position embeddings, and what its tokenizer says.

    Args:
        model: of transformers' classes for sequence classification.
        tokenizer: of the model.
    """
    longest = int(tokenizer.model_max_length)  # a very large number where it says nothing
    for name, module in model.named_modules():
        if name.endswith(".position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa counts positions from the one after that of the padding.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            longest = min(longest, module.num_embeddings - first)
    return longest


@contextmanager
def _in_float32(model: Any) -> Iterator[None]:
    """Let the head compute in float32 for the time of the block: no mixed precision touches a score."""
    modules = [model.get_submodule(name) for name in head_modules(model)]
    try:
        for module in modules:
            module.forward = partial(_precisely, module.forward)
        yield
    finally:
        for module in modules:
            del module.forward


def _precisely(forward: Any, states: torch.Tensor) -> torch.Tensor:
    with torch.autocast(states.device.type, enabled=False):
        result: torch.Tensor = forward(states.float())
    return result
