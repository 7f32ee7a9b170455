"""Texts as lists of words."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# Thai, Lao, Tibetan, Myanmar, Khmer, kana, Han and its extensions: scripts without spaces between words.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff])"
)


def words(text: str) -> list[str]:
    """Small letters; no punctuation, no English articles; characters of scripts without spaces stand alone.

    On ASCII it is the normalisation of SQuAD's own script (Rajpurkar et al., 2016, evaluate-v1.1.py).
    """
    kept = "".join(character for character in text.lower() if not _is_punctuation(character))
    return _UNSPACED.sub(r" \1 ", _ARTICLES.sub(" ", kept)).split()


def shared_words(answer: str, reference: str) -> float:
    """F1 of the words of an answer: the harmonic mean of precision and recall, from 0 to 1."""
    said, wanted = words(answer), words(reference)
    if not said or not wanted:
        return float(said == wanted)
    common = (Counter(said) & Counter(wanted)).total()
    return 2 * common / (len(said) + len(wanted))


def _is_punctuation(character: str) -> bool:
    # string.punctuation has what Unicode calls symbols too, such as $ and +.
    return character in string.punctuation or unicodedata.category(character).startswith("P")
