"""The model card: metadata that the Hub takes, and what a stranger must know."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
import yaml
from tests.hub.repositories import card_problems
from tests.unit.written import SMALL, recipe_of

from recipe_engine.contract import lasting
from recipe_engine.report.card import card
from recipe_engine.report.curve import loss_curve
from recipe_engine.report.outcome import Evaluation, Outcome
from recipe_engine.toml_text import to_toml

ON_HUB = SMALL.replace("file:model", "hub:me/base").replace("file:train.jsonl", "hub:me/rows")
EFFICIENCY = {
    "trainable_parameters": 1000,
    "total_parameters": 20000,
    "peak_memory_bytes": 2**30,
    "wall_seconds": 61.0,
    "cpu_seconds": 60.0,
    "tokens_per_second": 512.0,
}
COMPONENTS = {
    "hardware": {"device": "cpu", "threads": 2, "cpu_flags": []},
    "packages": {"torch": {"version": "2.13.0", "record_sha256": "0"}},
}
MEASURED = (
    Evaluation("perplexity", "perplexity", "eval", "base", {"loss": 4.0}),
    Evaluation("perplexity", "perplexity", "eval", "result", {"loss": 2.0, "perplexity": math.inf}),
)


def written(text: str = ON_HUB, **outcome: Any) -> tuple[dict[str, Any], str]:
    """The card's metadata, and the card."""
    found = card(recipe_of(text), Outcome(**{"base": "me/base"} | outcome))
    assert card_problems(found) == []
    data: dict[str, Any] = yaml.safe_load(found.split("---\n")[1])
    return data, found


def test_metadata_of_an_adapter() -> None:
    data, _ = written(license="apache-2.0", language=("en", "de"), evaluations=MEASURED)
    assert data == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "base_model": "me/base",
        "base_model_relation": "adapter",
        "datasets": ["me/rows"],
        "language": ["en", "de"],
        "license": "apache-2.0",
        "tags": ["recipe-engine", "full", "lora", "sft"],
        "model-index": [
            {
                "name": "small",
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {"name": "eval (train)", "type": "local"},
                        # Infinity is no number that the Hub takes.
                        "metrics": [{"type": "perplexity", "name": "perplexity.loss", "value": 2.0}],
                    }
                ],
            }
        ],
    }


def test_metadata_of_a_whole_model_from_here() -> None:
    data, text = written(SMALL, is_adapter=False, base="sha256:0")
    assert data["library_name"] == "transformers"
    assert not {"base_model", "datasets", "license", "language", "model-index"} & data.keys()
    assert "PeftModel" not in text


def test_an_adapter_for_what_another_recipe_trained_names_that_and_no_model_of_the_hub() -> None:
    data, text = written(trained_by="whole")
    assert not {"base_model", "base_model_relation"} & data.keys()
    assert "A PEFT adapter for the model that the recipe `whole` made of `me/base`, made by" in text
    assert 'base_model = "path/to/the/base"  # a folder with what whole made\n' in text
    data, text = written(trained_by="whole", is_adapter=False)
    assert (data["base_model"], data["base_model_relation"]) == ("me/base", "finetune")
    assert "A model fine-tuned from `me/base`, made by" in text


def test_words_of_yaml_stay_words() -> None:
    data, _ = written(language=("no",), base="null/1.0", evaluations=MEASURED)
    assert (data["language"], data["base_model"]) == (["no"], "null/1.0")


def test_what_the_hub_would_refuse_is_refused_by_the_contract_hub() -> None:
    found = card(recipe_of(ON_HUB), Outcome(base="me/base", license="my-own"))
    assert card_problems(found) == ['"license" must be one of apache-2.0, mit, llama2, cc-by-4.0, other']


def test_sections() -> None:
    gate = {"metric": "perplexity.loss", "rule": "<= 0.6 * before", "value": 2.0, "limit": 2.4, "met": True}
    _, text = written(
        repository="me/tiny",
        evaluations=MEASURED,
        gates=(gate,),
        efficiency=EFFICIENCY,
        components=COMPONENTS,
        lock='{"schema_version": 1}\n',
        has_curve=True,
    )
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == ["Load it", "Evaluation", "Limits", "Training", "Recipe"]
    for expected in (
        'PeftModel.from_pretrained(base, "me/tiny")',
        'base_model = "me/base"',
        "- perplexity.loss is 2, as it must be <= 0.6 * before (that is 2.4)",
        "- Measured on `data.eval` alone",
        "| hardware | cpu, 2 threads |",
        "| packages | torch 2.13.0 |",
        "| parameters | 1,000 trained of 20,000 |",
        "- training time: 61 s",
        "![Loss of each step](loss.svg)",
        "`recipe run hub:me/tiny` makes it again",
        '```json\n{"schema_version": 1}\n```',
    ):
        assert expected in text
    assert "None" not in text


def test_the_recipe_stands_there_as_it_was_written_and_with_every_default() -> None:
    text = ON_HUB + "# why: `seven`, and a fence ```\n"
    _, found = written(text)
    shown, whole = re.findall(r"^(````?)toml\n(.*?)\n\1$", found, re.MULTILINE | re.DOTALL)
    assert shown == ("````", text.rstrip())
    assert whole == ("```", to_toml(recipe_of(text).to_table()).rstrip())
    changed = card(recipe_of(text, ['name="other"']), Outcome(base="me/base"))
    assert "why:" not in changed, "more than the file made it"
    assert changed.count('name = "other"') == 1


def test_two_runs_with_one_result_have_cards_that_differ_in_what_is_volatile_alone() -> None:
    texts = [written(efficiency={**EFFICIENCY, "wall_seconds": seconds})[1] for seconds in (1.0, 2.0)]
    assert texts[0] != texts[1]
    assert lasting(texts[0]) == lasting(texts[1])
    other = written(efficiency={**EFFICIENCY, "trainable_parameters": 1})[1]
    assert lasting(other) != lasting(texts[0])


def test_a_text_without_marks_is_lasting_and_an_open_mark_hides_the_rest() -> None:
    assert lasting("a\nb\n") == "a\nb\n"
    assert lasting("a\n<!-- volatile -->\nb\n<!-- /volatile -->\nc\n") == "a\nc\n"
    assert lasting("a\n<!-- volatile -->\nb\n") == "a\n"


def test_the_curve_falls_from_left_to_right() -> None:
    picture = loss_curve({"step": step, "loss": 2.0 - step / 4} for step in range(1, 5))
    line = ET.fromstring(picture).find("{http://www.w3.org/2000/svg}polyline")
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points[0] == (56.0, 16.0)  # the highest loss is at the top left,
    assert points[-1] == (624.0, 244.0)  # the lowest at the bottom right,
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[1][1] == pytest.approx(16 + 228 / 3, abs=0.1)  # and the others where they belong


def test_a_long_training_is_as_small_a_picture() -> None:
    assert len(loss_curve({"step": step, "loss": 1.0 + step % 2} for step in range(1, 100_000))) < 8000


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, math.nan], ["nan", "inf"]])
def test_there_is_no_curve_of_less_than_two_numbers(losses: list[Any]) -> None:
    assert loss_curve({"step": step, "loss": loss} for step, loss in enumerate(losses)) == ""


def test_a_constant_loss_is_a_line() -> None:
    assert "polyline" in loss_curve({"step": step, "loss": 1.0} for step in (1, 2))
