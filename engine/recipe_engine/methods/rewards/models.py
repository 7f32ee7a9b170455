"""Rewards that a model gives: one that another recipe trained, or one that classifies texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import InvalidArguments, UnresolvedInput
from recipe_engine.training.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from recipe_engine.contract import Answer, ResolvedSource, RewardRequest
    from recipe_engine.methods.rewards import options


class RecipeReward:
    """The score of a reward model, which reads the very tokens that the policy wrote, or on an encoder their text."""

    def open(self, request: RewardRequest) -> None:
        """Take the live model; one of another base has a padding token of its own."""
        assert request.tokenizer is not None  # the graph gives every training a tokenizer
        self._model = request.model
        own = getattr(request.model, "pad", None)
        self._pad = open_tokenizer(request.tokenizer).pad_token_id if own is None else own
        self._batch_size: int = request.options.batch_size

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """The score of each answer."""
        from recipe_engine.training.reward_model import scores

        return scores(self._model, self._model.of_answers(answers), self._pad, batch_size=self._batch_size)


class ModelReward:
    """What a classifier of texts says."""

    def open(self, request: RewardRequest) -> None:
        """Load it with its own tokenizer.

        Raises:
            UnresolvedInput: it cannot be loaded, or has no head.
            InvalidArguments: it has no such label.
        """
        assert request.source is not None  # its descriptor names one
        self._options: options.RewardModel = request.options
        self._model, self._tokenizer = load_classifier(request.source, request.device)
        # A decoder's tokenizer may give an empty answer no token at all, and a model cannot read nothing.
        self._empty = "" if self._tokenizer("")["input_ids"] else str(self._tokenizer.pad_token)
        self._label = _label_of(self._options.label, self._model.config, request.source.reference)

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """The score of the label for each answer; those of like length are taken together."""
        import torch

        from recipe_engine.training.batches import by_length

        found = [0.0] * len(answers)
        for places in by_length([answer.text.encode() for answer in answers], self._options.batch_size):
            with torch.no_grad():
                logits = self._model(**self._inputs([answers[place] for place in places])).logits.float()
            values = label_scores(logits, self._label, self._options.output).tolist()
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found

    def _inputs(self, answers: Sequence[Answer]) -> Any:
        texts = [answer.text or self._empty for answer in answers]
        paired = self._options.input == "question and answer"
        given = ([answer.question for answer in answers], texts) if paired else (texts,)
        longest = self._model.config.max_position_embeddings
        batch = self._tokenizer(*given, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        return batch.to(self._model.device)


def label_scores(logits: torch.Tensor, label: int, output: str) -> torch.Tensor:
    """The score of a label, (texts,).

    Args:
        logits: of all labels, (texts, labels).
        label: position of the label.
        output: ``logit`` is the log-odds log(p / (1 - p)) of the label against all others, ``probability`` is p. Of one
            label alone it is the output itself, or its sigmoid.
    """
    import torch

    if logits.shape[-1] == 1:
        odds = logits[:, 0]
    else:
        others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
        odds = logits[:, label] - others.logsumexp(dim=1)
    return odds if output == "logit" else odds.sigmoid()


def load_classifier(source: ResolvedSource, device: str) -> tuple[Any, Any]:
    """A model with a head for sequence classification, and its tokenizer.

    Raises:
        UnresolvedInput: it cannot be loaded safely, or has no head.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = _folder_of(source)
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UnresolvedInput(f"the reward model {source.reference} cannot be loaded: {error}") from error
    if report["missing_keys"]:  # transformers would go on with random numbers in their place
        raise UnresolvedInput(
            f"{source.reference} has no trained head for sequence classification: it lacks "
            f"{min(report['missing_keys'])}.",
            "Name a model that classifies texts, or the recipe of a reward model.",
        )
    _pad_with_something(model, tokenizer)
    return model.requires_grad_(requires_grad=False).eval().to(device), tokenizer


def _folder_of(source: ResolvedSource) -> Path:
    for file in source.files:
        if file.path == "config.json" and file.local is not None:
            return Path(file.local).parent
    raise UnresolvedInput(f"{source.reference} holds no config.json.", "A reward model is a folder of transformers.")


def _pad_with_something(model: Any, tokenizer: Any) -> None:
    """Decoders find the end of a text before the tokens that pad, which must have a name for that."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.padding_side = "right"
    model.config.pad_token_id = tokenizer.pad_token_id


def _label_of(label: str | None, config: Any, reference: str) -> int:
    """The position of a label.

    Raises:
        InvalidArguments: the model has none of that name, or several and none is given.
    """
    known = {str(name): int(place) for place, name in config.id2label.items()}
    if label is None and len(known) == 1:
        return 0
    if label not in known:
        what = "has several labels, and none is given" if label is None else f"has no label {label}"
        raise InvalidArguments(f"{reference} {what}.", f"Its labels are {', '.join(known)}.")
    return known[label]
