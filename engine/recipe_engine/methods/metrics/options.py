"""Options of the metrics over answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recipe_engine.options import option


@dataclass(frozen=True)
class EvaluateAnswers:
    """Greedy answers to all rows, kept with their references: what the metrics measure."""

    data: str = option("Data set to answer.", default="eval", in_key=False)
    max_new_tokens: int = option("Longest answer.", default=64, minimum=1, unit="tokens")
    batch_size: int = option("Rows that are generated at once.", default=32, minimum=1, unit="rows")


@dataclass(frozen=True)
class Measured:
    """How the answers come about that a metric measures; metrics that say the same share them."""

    # Out of the metric's own key: they are in that of the answers.
    data: str = option("Data set to measure on.", default="eval", in_key=False)
    max_new_tokens: int = option("Longest answer.", default=64, minimum=1, unit="tokens", in_key=False)
    batch_size: int = option("Rows that are generated at once.", default=32, minimum=1, unit="rows", in_key=False)

    def answers(self) -> EvaluateAnswers:
        """The answers that are measured."""
        return EvaluateAnswers(data=self.data, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)


@dataclass(frozen=True)
class EvaluateExactMatch(Measured):
    """Share of rows whose greedy answer is the reference; outer white space is ignored."""

    normalize: bool = option(
        "Compare words alone, as f1 does: small letters, no punctuation, no articles; or every character.",
        default=False,
    )


@dataclass(frozen=True)
class EvaluateF1(Measured):
    """Words that answer and reference share (Rajpurkar et al., 2016: SQuAD), from 0 to 1.

    Small letters; without punctuation and the articles a, an, the; split at white space, and between the characters of
    scripts that write no spaces.
    """


@dataclass(frozen=True)
class EvaluateBleu(Measured):
    """BLEU of all answers together (Papineni et al., 2002), from 0 to 100, by sacrebleu (Post, 2018)."""

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = option(
        "How texts are split into words: 13a for scripts with spaces, zh for Chinese, char for any script.",
        default="13a",
    )
    lowercase: bool = option("Compare small letters.", default=False)


@dataclass(frozen=True)
class EvaluateChrf(Measured):
    """Character n-grams of all answers together (Popovic, 2015: chrF), from 0 to 100, by sacrebleu."""

    char_order: int = option("Longest n-gram.", default=6, minimum=1, maximum=32, unit="characters")
    word_order: int = option("Longest n-gram of words; 2 is chrF++.", default=0, minimum=0, maximum=8, unit="words")
    lowercase: bool = option("Compare small letters.", default=False)


@dataclass(frozen=True)
class EvaluateRouge(Measured):
    """Mean F-measure of shared words, word pairs and longest common subsequence (Lin, 2004: ROUGE), by rouge-score."""

    tokenize: Literal["latin", "words"] = option(
        "How texts are split: latin knows a to z and digits alone, as rouge-score does; words is what f1 compares.",
        default="latin",
    )
    stemmer: bool = option(
        "Compare English stems (Porter, 1980) instead of words.", default=False, needs="tokenize=latin"
    )


@dataclass(frozen=True)
class EvaluateJsonValid(Measured):
    """Share of rows whose greedy answer is one JSON value and nothing else."""
