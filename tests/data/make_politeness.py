"""Writes the data sets of the recipes in recipes/rlhf: questions about opening hours, answered warmly or curtly.

The rows come from literal sentence templates and a seeded generator, so the same source gives the same bytes on every
machine. The held-out pairs end in words of their own: what is measured is whether warmth was learned, not words.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SEED = 20240301
SIZES = {"answers": 240, "pairs.train": 320, "pairs.heldout": 100, "prompts": 160}
DATA = Path(__file__).resolve().parents[2] / "recipes" / "data"

PLACES = (
    "bakery", "library", "museum", "pharmacy", "swimming pool", "post office", "bookshop", "town hall", "gym", "zoo",
    "flower shop", "art gallery", "hardware store", "ice rink", "theatre box office", "butcher", "cheese shop", "bank",
    "bicycle shop", "farmers' market",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOURS = ("seven", "half past seven", "eight", "half past eight", "nine", "half past nine", "ten", "half past ten")
QUESTIONS = (
    "When does the {place} open on {day}?",
    "What time does the {place} open on {day}?",
    "Could you tell me when the {place} opens on {day}?",
    "From what time on can I come to the {place} on {day}?",
    "Is the {place} open on {day} morning, and from when?",
)
FACTS = (
    "The {place} opens at {hour} on {day}.",
    "On {day} the {place} opens at {hour}.",
    "It opens at {hour} on {day}.",
)
WARM = {
    "train": (
        "Have a lovely day!", "I hope this helps.", "Thank you for asking!", "Enjoy your visit!", "See you soon!",
        "Let me know if you need anything else.", "We look forward to seeing you.", "It was a pleasure to help.",
        "Take care, and have fun!", "I am glad you asked.",
    ),
    "heldout": (
        "Have a wonderful weekend!", "Thanks for getting in touch!", "Please ask if I can do more for you.",
        "We would be happy to welcome you.", "Wishing you a great time there!",
    ),
}  # fmt: skip
CURT = {
    "train": (
        "That is all.", "Look it up next time.", "Read the sign.", "Do not ask again.", "You should know that.",
        "Figure out the rest.", "Stop calling.", "Why do you even ask?", "I have no time for this.", "Just go away.",
    ),
    "heldout": (
        "Ask somebody else.", "Everybody knows that.", "Do not be late.", "This is not my job.", "Leave me alone.",
    ),
}  # fmt: skip


def asked(rng: random.Random) -> tuple[str, str]:
    """A question, and the fact that answers it."""
    known = {"place": rng.choice(PLACES), "day": rng.choice(DAYS), "hour": rng.choice(HOURS)}
    return rng.choice(QUESTIONS).format(**known), rng.choice(FACTS).format(**known)


def rows(name: str) -> Iterator[dict[str, str]]:
    """The rows of one file."""
    rng = random.Random(f"{SEED} {name}")
    words = "heldout" if name == "pairs.heldout" else "train"
    for number in range(SIZES[name]):
        question, fact = asked(rng)
        warm, curt = (f"{fact} {rng.choice(endings[words])}" for endings in (WARM, CURT))
        if name == "prompts":
            yield {"prompt": question}
        elif name == "answers":
            # Either manner, equally often: what is learned from them is the task, and no manner.
            yield {"prompt": question, "completion": curt if number % 2 else warm}
        else:
            yield {"prompt": question, "chosen": warm, "rejected": curt}


def text(name: str) -> str:
    """The content of one file: JSON Lines, ASCII, a newline after every row."""
    return "".join(json.dumps(row) + "\n" for row in rows(name))


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the files, or with --check says whether the committed ones are what this source makes."""
    parser = argparse.ArgumentParser(description="Make the data sets of the recipes in recipes/rlhf.")
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    check = parser.parse_args(argv).check
    stale = []
    for name in SIZES:
        path = DATA / f"politeness.{name}.jsonl"
        content = text(name).encode("ascii")
        if not check:
            path.write_bytes(content)
        elif not path.is_file() or path.read_bytes() != content:
            stale.append(path.name)
    if stale:
        print(f"{', '.join(stale)}: stale; run: python tests/data/make_politeness.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
