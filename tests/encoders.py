"""Tiny encoders of six families, each with a tokenizer that puts two texts together as the family does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import tiny

HIDDEN, INNER, HEADS, LAYERS, POSITIONS = 32, 64, 4, 2, 160
PAD, START, END, MASK = "[PAD]", "[CLS]", "[SEP]", "[MASK]"
_WIDTHS = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
}


@dataclass(frozen=True)
class Encoder:
    """A family.

    Attributes:
        name: of transformers' classes: ``Bert``.
        pair: how its tokenizer puts two texts together.
        has_types: whether its tokenizer gives tokens a type.
        config: of the model.
        head: names of its head's modules, sorted.
    """

    name: str
    pair: str
    has_types: bool
    head: tuple[str, ...]
    config: dict[str, Any] = field(default_factory=lambda: dict(_WIDTHS))

    def write(self, folder: Path, *, seed: int = 0, whole: str = "MaskedLM", **config: Any) -> Path:
        """A folder with tokenizer and random weights.

        Args:
            folder: it is made.
            seed: of the weights.
            whole: of which of transformers' classes the weights are saved; ``""`` for the encoder alone.
            **config: of the model.
        """
        import torch
        import transformers

        size = self.write_tokenizer(folder)
        ids = {"pad_token_id": size - 4, "cls_token_id": size - 3, "sep_token_id": size - 2}
        ids |= {"bos_token_id": size - 3, "eos_token_id": size - 2}
        if "Roberta" in self.name:  # its positions are counted from that of the padding
            ids["pad_token_id"] = 1
        made = getattr(transformers, f"{self.name}Config")(vocab_size=size, **{**self.config, **ids, **config})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = getattr(transformers, f"AutoModelFor{whole}" if whole else "AutoModel").from_config(made)
            with torch.no_grad():
                for weight in model.parameters():
                    weight.add_(0.1 * torch.randn_like(weight))
        model.save_pretrained(folder)
        return folder

    def write_tokenizer(self, folder: Path) -> int:
        """Its tokenizer, and how many tokens that knows."""
        from tokenizers import Tokenizer, processors

        tiny.write_tokenizer(folder, chat_template=None, special=(PAD, START, END, MASK), eos=END)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        special = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", pair=self.pair, special_tokens=special
        )
        tokenizer.save(str(folder / "tokenizer.json"))
        names = ["input_ids", *(["token_type_ids"] if self.has_types else []), "attention_mask"]
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": PAD,
            "cls_token": START,
            "sep_token": END,
            "mask_token": MASK,
            "model_max_length": POSITIONS,
            "model_input_names": names,
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return int(tokenizer.get_vocab_size())


_TYPED = f"{START} $A {END} $B:1 {END}:1"
_UNTYPED = f"{START} $A {END} $B {END}"
_DISTILBERT = {
    "dim": HIDDEN,
    "hidden_dim": INNER,
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "max_position_embeddings": POSITIONS,
}
BERT = Encoder("Bert", _TYPED, True, ("bert.pooler", "classifier"))
ENCODERS = {
    "bert": BERT,
    "roberta": Encoder(
        "Roberta",
        f"{START} $A {END} {END} $B {END}",
        False,
        ("classifier",),
        {**_WIDTHS, "type_vocab_size": 1, "max_position_embeddings": POSITIONS + 2},
    ),
    "distilbert": Encoder("DistilBert", _UNTYPED, False, ("classifier", "pre_classifier"), _DISTILBERT),
    "deberta": Encoder(
        "DebertaV2",
        _TYPED,
        True,
        ("classifier", "pooler"),
        {**_WIDTHS, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    ),
    "electra": Encoder("Electra", _TYPED, True, ("classifier",), {**_WIDTHS, "embedding_size": HIDDEN}),
    "modernbert": Encoder("ModernBert", _UNTYPED, False, ("classifier", "head")),
}
