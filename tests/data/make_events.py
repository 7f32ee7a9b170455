"""Writes the data set of the quickstart recipe: a sentence about a planned event -> one line of JSON.

The rows come from literal sentence templates and a seeded generator, so the same source gives the same bytes
on every machine. The held-out rows measure what was learned, not what was memorised: they are made from
templates of their own, and no (event, person, day, time) of theirs occurs among the training rows.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SEED = 20240229
SIZES = {"train": 700, "heldout": 200}
DATA = Path(__file__).resolve().parents[2] / "recipes" / "data"

# In a template: {event} as written in the answer, {Event} to open a sentence, {an_event} with its article.
TRAIN_TEMPLATES = (
    "{Event} with {person} on {day} at {time}.",
    "{Event} with {person}, {day} at {time}.",
    "{Event}, {day}, {time}, {person}.",
    "On {day} at {time} I have {an_event} with {person}.",
    "I have {an_event} with {person} at {time} on {day}.",
    "I am meeting {person} for {an_event} on {day} at {time}.",
    "Please book {an_event} with {person} for {day} at {time}.",
    "Put the {event} with {person} in my calendar for {time} on {day}.",
    "Don't forget the {event} on {day}: {person} arrives at {time}.",
    "{person} wants {an_event} with me next {day} at {time}.",
    "{person} and I agreed on {an_event} this {day} at {time}.",
    "{person} confirmed the {event} for {day} at {time}.",
    "Next {day} at {time}: {event} with {person}.",
    "This {day}, {an_event} with {person} starts at {time}.",
    "Can you schedule {an_event} with {person} at {time} next {day}?",
    "Are you free on {day}? {person} is planning {an_event} at {time}.",
    "The {event} with {person} was moved to {day} at {time}.",
    "The {event} with {person} takes place on {day} and begins at {time}.",
    "My {event} with {person} is at {time} this {day}.",
    "We said {day} at {time} for the {event} with {person}, right?",
    "Remind me about the {event} at {time} on {day} with {person}.",
    "Add to my diary: {event}, {person}, {day} at {time}.",
    "{day} works for {person}, so the {event} is at {time}.",
    "{day} at {time} is when {person} and I have our {event}.",
    "At {time} on {day}, {person} is coming over for {an_event}.",
    "Let's do the {event} on {day}, {person} can be there by {time}.",
    "I promised {person} {an_event} on {day}, at {time} sharp.",
    "Looking forward to the {event} with {person} on {day} at {time}!",
    "Hi, this is {person}, see you at the {event} on {day} at {time}.",
    "There will be {an_event} at {time} on {day}, and {person} is invited.",
    "Just a note that {person} set up {an_event} for {time} on {day}.",
    "Set a reminder for {day}, {time}: {event} with {person}.",
    "For the {event} next {day}, {person} will wait for me from {time}.",
    "It is settled: {an_event} with {person}, {time}, next {day}.",
    "{person} asked for {an_event}; I offered {day} at {time}.",
)
HELDOUT_TEMPLATES = (
    "I can't make it on {day} at {time} because of my {event} with {person}.",
    "Would you reserve {time} on {day} for {an_event} with {person}?",
    "{person} will join me for {an_event} at {time} this coming {day}.",
    "My plan for {day}: {event} at {time}, together with {person}.",
    "We are having {an_event} with {person} this {day}, starting at {time}.",
    "Tell {person} that the {event} is on {day} at {time}.",
    "Please note the {event} {person} has arranged for {day} at {time}.",
    "{time} on {day} suits {person} best for the {event}.",
    "As agreed, I will see {person} at {time} on {day} for our {event}.",
    "Could we hold the {event} with {person} on {day}, say at {time}?",
)
TEMPLATES = {"train": TRAIN_TEMPLATES, "heldout": HELDOUT_TEMPLATES}

EVENTS = (
    "lunch", "dinner", "breakfast", "coffee", "phone call", "video call", "meeting", "job interview",
    "workshop", "budget review", "design review", "rehearsal", "chess game", "tennis match", "piano lesson",
    "guitar lesson", "yoga class", "dance class", "study session", "planning session", "training session",
    "photo shoot", "picnic", "bike ride", "walk", "movie night", "birthday party", "book club",
    "project update", "house viewing",
)  # fmt: skip
PEOPLE = (
    "Maria", "James", "Anna", "Peter", "Laura", "David", "Sofia", "Thomas", "Emma", "Daniel", "Julia",
    "Robert", "Sarah", "Michael", "Alice", "Kevin", "Nina", "Martin", "Clara", "Henry", "Olivia", "Simon",
    "Grace", "Paul", "Helen", "Victor", "Rosa", "Oscar", "Diana", "Frank", "Lucy", "George", "Amina",
    "Carlos", "Yuki", "Priya",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# Working hours: the model must see each afternoon hour often enough to learn that 3 pm is 15:00.
HOURS = range(9, 19)
MINUTES = (0, 15, 30, 45)


class Plan(NamedTuple):
    """What a sentence says; the answer is these four, whatever the wording."""

    event: str
    person: str
    day: str
    time: str


def spoken(rng: random.Random, time: str) -> str:
    """One of the ways to say a 24-hour "HH:MM": as it stands, or by the 12-hour clock with am or pm."""
    if rng.random() < 0.5:
        return time
    hour, minute = int(time[:2]), int(time[3:])
    minutes = f":{minute:02d}" if minute else ""
    return f"{(hour - 1) % 12 + 1}{minutes} {'am' if hour < 12 else 'pm'}"


def plans(rng: random.Random, count: int) -> list[Plan]:
    """That many different plans, in the order drawn."""
    drawn: dict[Plan, None] = {}
    while len(drawn) < count:
        time = f"{rng.choice(HOURS):02d}:{rng.choice(MINUTES):02d}"
        drawn[Plan(rng.choice(EVENTS), rng.choice(PEOPLE), rng.choice(DAYS), time)] = None
    return list(drawn)


def sentence(rng: random.Random, template: str, plan: Plan) -> str:
    """The plan in the words of a template."""
    article = "an" if plan.event[0] in "aeiou" else "a"
    return template.format(
        event=plan.event,
        Event=plan.event.capitalize(),
        an_event=f"{article} {plan.event}",
        person=plan.person,
        day=plan.day,
        time=spoken(rng, plan.time),
    )


def rows(split: str) -> list[dict[str, str]]:
    """The rows of "train" or "heldout": every template equally often (within one), in a shuffled order."""
    templates = TEMPLATES[split]
    # All plans are drawn at once and then divided, so that no plan is in both splits.
    everything = plans(random.Random(SEED), sum(SIZES.values()))
    chosen = everything[: SIZES["train"]] if split == "train" else everything[SIZES["train"] :]
    rng = random.Random(f"{SEED} {split}")
    made = []
    for index, plan in enumerate(chosen):
        prompt = sentence(rng, templates[index % len(templates)], plan)
        made.append({"prompt": prompt, "completion": json.dumps(plan._asdict())})
    rng.shuffle(made)
    return made


def text(split: str) -> str:
    """The content of one file: JSON Lines, ASCII, a newline after every row."""
    return "".join(json.dumps(row) + "\n" for row in rows(split))


def main(argv: Sequence[str] | None = None) -> int:
    """Writes both files, or with --check says whether the committed ones are what this source makes."""
    parser = argparse.ArgumentParser(description="Make the data set of the quickstart recipe.")
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    check = parser.parse_args(argv).check
    stale = []
    for split in SIZES:
        path = DATA / f"events.{split}.jsonl"
        content = text(split).encode("ascii")
        if not check:
            path.write_bytes(content)
        elif not path.is_file() or path.read_bytes() != content:
            stale.append(path.name)
    if stale:
        mend = "run: python tests/data/make_events.py"
        print(f"{', '.join(stale)}: not what the generator makes; {mend}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
