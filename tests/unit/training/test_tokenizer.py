"""Texts that go on after others, in tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import tiny
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from recipe_engine.training.tokenizer import continued_ids, open_tokenizer, special_tokens, token_ids

Kind = Literal["legacy", "first", "always"]
MERGES = "a r|▁ P|P ar|i s|Par is|▁P ar|▁Par is|▁ is|i n|▁ ["


def sentencepiece(kind: Kind) -> Any:
    """A tokenizer that marks beginnings, in the three ways that Llama's and Mistral's files do."""
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in MERGES.split("|"))]
    alphabet = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁Parsint[]/NST.u", "I"]
    vocabulary = dict.fromkeys([*alphabet, *("".join(merge) for merge in merges)])
    numbered = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(numbered, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if kind == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in ("<s>", "</s>", "<answer>")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("kind", ["legacy", "first", "always"])
@pytest.mark.parametrize(("answer", "first"), [(" Paris is in.", "▁Paris"), ("Paris is in.", "Paris")])
def test_an_answer_has_the_tokens_that_generation_writes(kind: Kind, answer: str, first: str) -> None:
    tokenizer, prompt = sentencepiece(kind), "<s>[INST] in u [/INST]"
    placed = continued_ids(tokenizer, prompt, answer)
    assert tokenizer.convert_ids_to_tokens(placed) == [first, "▁is", "▁", "in", "."]
    assert token_ids(tokenizer, prompt) + placed == token_ids(tokenizer, prompt + answer)


def test_on_its_own_it_would_have_others() -> None:
    tokenizer = sentencepiece("legacy")
    assert tokenizer.convert_ids_to_tokens(token_ids(tokenizer, " Paris")) == ["▁", "▁Paris"]


@pytest.mark.parametrize(
    ("kind", "tokens"), [("legacy", ["▁Paris", "</s>"]), ("first", ["Paris", "</s>"]), ("always", ["▁Paris", "</s>"])]
)
def test_after_a_special_token_it_has_those_of_the_whole_text(kind: Kind, tokens: list[str]) -> None:
    tokenizer = sentencepiece(kind)
    assert tokenizer.convert_ids_to_tokens(continued_ids(tokenizer, "is<answer>", "Paris</s>")) == tokens


@given(before=st.text("Pars in[]/.\n", min_size=1), text=st.text("Pars in[]/.\né", min_size=1))
def test_nothing_is_added_and_nothing_lost(before: str, text: str) -> None:
    for kind in ("legacy", "first", "always"):
        tokenizer = sentencepiece(kind)
        assert tokenizer.decode(continued_ids(tokenizer, before, text)) == text


@pytest.mark.parametrize("text", ["Hello", " Hello", "\nHello", "the", tiny.END])
def test_other_tokenizers_take_a_text_as_it_is(text: str, tmp_path: Path) -> None:
    tokenizer = open_tokenizer(tiny.write_tokenizer(tmp_path))
    assert continued_ids(tokenizer, "is t", text) == token_ids(tokenizer, text)


def test_special_tokens_are_those_of_the_file_and_of_the_configuration() -> None:
    assert set(special_tokens(sentencepiece("legacy")).values()) == {"<s>", "</s>", "<answer>"}
