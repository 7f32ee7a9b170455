"""What the project is for: rows, batches, losses and loops. The only home of numerics.

The names here are those that plugins build on (``docs/plugins.md``); their modules have more, which may change.
"""

from recipe_engine.training.batches import IGNORE, Plan, collate, plan_batches
from recipe_engine.training.borrow import borrowed
from recipe_engine.training.choice import Decoding
from recipe_engine.training.generation import greedy
from recipe_engine.training.result import ResultWriter, load_result
from recipe_engine.training.rewards import Scores, open_rewards
from recipe_engine.training.rows import Pair, Row, end_tokens, read_pairs, read_rows
from recipe_engine.training.tokenizer import open_tokenizer
from recipe_engine.training.usage import Usage

__all__ = [
    "IGNORE",
    "Decoding",
    "Pair",
    "Plan",
    "ResultWriter",
    "Row",
    "Scores",
    "Usage",
    "borrowed",
    "collate",
    "end_tokens",
    "greedy",
    "load_result",
    "open_rewards",
    "open_tokenizer",
    "plan_batches",
    "read_pairs",
    "read_rows",
]
