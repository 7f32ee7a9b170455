"""A reward model: a language model whose state at the end of a text becomes a score, the higher the better."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

from recipe_engine.errors import StageFailed
from recipe_engine.training.adapters import CONFIG_FILE, OWN_WEIGHTS_FILE, WEIGHTS_FILE, load_adapter_weights
from recipe_engine.training.batches import by_length, packed_inputs
from recipe_engine.training.borrow import borrowed
from recipe_engine.training.layout import layout_of
from recipe_engine.training.loss import on_device, packed_states
from recipe_engine.training.packed_attention import packed_attention
from recipe_engine.training.prefixes import share_prefixes, shares_on, whole
from recipe_engine.training.result import ResultWriter
from recipe_engine.training.segments import SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from recipe_engine.contract import Answer
    from recipe_engine.training.layout import Layout
    from recipe_engine.training.rows import Row
    from recipe_engine.training.scoring import Scoring, Text

ENDS = "ends"
"""Where a packed batch has the positions of its texts' last tokens."""
HEAD = "score"
"""Name of the head in transformers' classes for sequence classification."""
_HEAD_IN_PEFT = f"base_model.model.{HEAD}.weight"


class RewardModel(torch.nn.Module):
    """Maps the last hidden state of a text's last token to a score.

    The head starts at 0, as every score does: nothing is preferred before anything is learned.

    Args:
        language_model: a causal language model of transformers, or a PEFT model around one. Its own head, which
            predicts tokens, is of no use here and is not trained.

    Attributes:
        language_model: the same.
        score: the head, (1, width) in float32 without a bias.
    """

    def __init__(self, language_model: Any) -> None:
        super().__init__()
        self.language_model = language_model
        width = language_model.config.get_text_config().hidden_size
        self.score = torch.nn.Linear(width, 1, bias=False, device=language_model.device, dtype=torch.float32)
        torch.nn.init.zeros_(self.score.weight)
        head, embedding = self.plain.get_output_embeddings(), self.plain.get_input_embeddings()
        if head is not None and head.weight is not embedding.weight:
            head.requires_grad_(requires_grad=False)
        self.eval()

    @property
    def config(self) -> Any:
        """The language model's."""
        return self.language_model.config

    @property
    def plain(self) -> Any:
        """The model of transformers, without a wrapper around it."""
        model = self.language_model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @property
    def layout(self) -> Layout:
        """How texts can lie in memory."""
        return layout_of(self.config.to_dict())

    @property
    def device(self) -> Any:
        """Where it is."""
        return self.score.weight.device

    def texts(self, rows: Sequence[Row]) -> list[tuple[int, ...]]:
        """What it reads of prepared rows: their tokens."""
        return [row.input_ids for row in rows]

    def of_answers(self, answers: Sequence[Answer]) -> list[tuple[int, ...]]:
        """What it reads of a policy's answers: the very tokens that the policy wrote."""
        return [answer.tokens for answer in answers]

    def lay(self, texts: Sequence[Sequence[int]], pad: int, layout: Layout, *, shared: bool = False) -> dict[str, Any]:
        """Texts as one batch; see :func:`lay`."""
        return lay(texts, pad, layout, shared=shared)

    def forward(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Scores of the texts of a batch of :func:`lay`, (texts,) in float32."""
        states = self._end_states(batch).float()
        # A product and a sum, which no mixed precision touches.
        return (states * self.score.weight[0]).sum(dim=-1)

    def _end_states(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Last hidden states of each text's last token, (texts, width).

        Where a text ends is told by its length: the token that pads may be the one that ends it.
        """
        if SEGMENTS in batch:
            hidden = packed_states(self.plain, batch)[0]  # (total, width)
            return hidden[batch[ENDS]]
        mask = batch["attention_mask"]
        hidden = self.plain.base_model(
            input_ids=batch["input_ids"], attention_mask=mask, use_cache=False
        ).last_hidden_state  # (texts, longest, width)
        return hidden[torch.arange(len(mask), device=mask.device), mask.sum(dim=1) - 1]


def lay(texts: Sequence[Sequence[int]], pad: int, layout: Layout, *, shared: bool = False) -> dict[str, Any]:
    """Texts as one batch.

    Args:
        texts: token ids of each.
        pad: id of the padding token; its value is never looked at again.
        layout: ``packed`` is end to end, within :func:`~recipe_engine.training.packed_attention.packed_attention`.
        shared: what texts that follow each other begin with is there once, where they are packed.

    Returns:
        What :func:`~recipe_engine.training.batches.packed_inputs` gives, and the positions of the texts' last tokens,
        (texts,); or ``input_ids`` with ``attention_mask``, (texts, longest) each.
    """
    if layout == "packed":
        pieces = share_prefixes(texts, [len(text) - 1 for text in texts]) if shared else whole(texts)
        ends = torch.tensor([len(piece.ids) for piece in pieces]).cumsum(dim=0) - 1
        return packed_inputs(pieces) | {ENDS: ends[[piece.row is not None for piece in pieces]]}
    rows = [torch.tensor(text, dtype=torch.long) for text in texts]
    pad_to_longest = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad_to_longest(rows, batch_first=True, padding_value=pad),
        "attention_mask": pad_to_longest([torch.ones_like(row) for row in rows], batch_first=True),
    }


def scores(
    model: Scoring[Text],
    texts: Sequence[Text],
    pad: int,
    *,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[float]:
    """The score of each text; the model is left as it was.

    Args:
        model: the reward model.
        texts: what it reads, in any order; those of like length are taken together.
        pad: id of the padding token.
        batch_size: texts of one forward pass.
        progress: called with the finished and all texts.
    """
    found = [0.0] * len(texts)
    done, layout, device = 0, model.layout, model.device
    with borrowed(model), torch.no_grad():
        for alike in by_length(texts, batch_size):
            order = sorted(alike, key=lambda at: tuple(texts[at]))  # those that begin alike follow each other
            batch = on_device(model.lay([texts[at] for at in order], pad, layout, shared=shares_on(device)), device)
            if layout == "packed":
                with packed_attention(model.language_model):
                    values = model(batch)
            else:
                values = model(batch)
            for at, value in zip(order, values.tolist(), strict=True):
                found[at] = value
            done += len(order)
            progress(done, len(texts))
    return found


class RewardWriter:
    """Writes a trained reward model. It is made before the training: some adapters are written as a difference.

    An adapter gets the head as PEFT keeps modules that are saved whole, so that it is loaded on transformers'
    ``AutoModelForSequenceClassification`` with ``num_labels=1``. Without an adapter the result is such a model.

    Args:
        model: what is about to be trained, before any checkpoint is put into it.

    Raises:
        StageFailed: where transformers has no class for the whole model.
    """

    def __init__(self, model: RewardModel) -> None:
        self._model = model
        self._adapter = ResultWriter(model.language_model) if _has_adapter(model) else None
        if self._adapter is None:
            _classifier(model.plain)

    def write(self, folder: Path, base: str) -> None:
        """Write what was trained; equal results are equal bytes.

        Args:
            folder: where the files go.
            base: what the configuration of an adapter calls the base model.
        """
        if self._adapter is None:
            _write_whole(self._model, folder)
            return
        self._adapter.write(folder, base)
        head = self._model.score.weight.detach().cpu().clone()
        for name in (WEIGHTS_FILE, OWN_WEIGHTS_FILE):
            if (folder / name).exists():
                _add_head(folder / name, head)
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        config |= {"task_type": "SEQ_CLS", "modules_to_save": sorted({*(config["modules_to_save"] or ()), HEAD})}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_reward_model(language_model: Any, folder: Path) -> RewardModel:
    """The reward model that :class:`RewardWriter` wrote, on a language model as it was before the training.

    Raises:
        ValueError: where names or shapes do not match: the artifact is of another adapter.
    """
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    model = RewardModel(language_model)
    if _has_adapter(model):
        head = load_file(folder / WEIGHTS_FILE)[_HEAD_IN_PEFT]
        load_adapter_weights(language_model, folder, others=frozenset({_HEAD_IN_PEFT}))
    else:
        trained = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=language_model.dtype, local_files_only=True, use_safetensors=True
        ).state_dict()
        head = trained.pop(f"{HEAD}.weight")
        language_model.load_state_dict(trained, strict=False)
    with torch.no_grad():
        model.score.weight.copy_(head)
    return model


def _has_adapter(model: RewardModel) -> bool:
    return hasattr(model.language_model, "peft_config")


def _add_head(file: Path, head: torch.Tensor) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    file.unlink()  # what was read is mapped from it
    save_file({**tensors, _HEAD_IN_PEFT: head}, file, metadata={"format": "pt"})


def _write_whole(model: RewardModel, folder: Path) -> None:
    """A model of transformers' class for sequence classification, with one label."""
    whole = _classifier(model.plain)
    known = whole.state_dict().keys()
    state = {name: tensor for name, tensor in model.plain.state_dict().items() if name in known}
    whole.load_state_dict({**state, f"{HEAD}.weight": model.score.weight.detach()}, assign=True)
    whole.save_pretrained(folder)


def _classifier(plain: Any) -> Any:
    """The class for sequence classification of a language model's architecture, without weights.

    Raises:
        StageFailed: where there is none, or its head has another name.
    """
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(plain.config)
    config.num_labels = 1
    config.pad_token_id = None  # its own way to find the end of a text passes over the token that ends it
    try:
        with torch.device("meta"):
            found = AutoModelForSequenceClassification.from_config(config)
    except ValueError:
        found = None
    if found is None or not hasattr(found, HEAD):
        raise StageFailed(
            f"train: transformers has no reward model of the architecture {config.model_type}.",
            "Train an adapter: [adapt.lora].",
        )
    return found
