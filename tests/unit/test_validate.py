"""Bad recipes and what a person reads of them: the golden files are the product's face.

Each family of cases is one golden file; each case stands there under its title, the messages as they are printed.
"""

from __future__ import annotations

import json
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from tests.unit.written import DATA, HEAD, LOAD, SMALL, TRAIN, builtins, composed, recipe_of, refusal

from recipe_engine.compose import apply, compose
from recipe_engine.descriptors import DataFormat, Method
from recipe_engine.document import parse
from recipe_engine.errors import InvalidRecipe
from recipe_engine.hookmark import hookimpl
from recipe_engine.methods.options import FormatChat, LoadFull
from recipe_engine.options import option
from recipe_engine.plugins import Catalogue, load_catalogue
from recipe_engine.toml_text import to_toml
from recipe_engine.validate import validate
from recipe_engine.wording import show

if TYPE_CHECKING:
    from tests.conftest import Golden

    from recipe_engine.model import Recipe

Case = str | tuple[str, ...]
"""A text, or a text and overrides."""

WHEEL = "wheel:tiny==1.0/tiny/model.gguf#sha256=" + "a" * 64
DIGEST = "sha256:" + "0" * 64


def base(reference: str) -> str:
    return LOAD.replace("file:model", reference)


FAMILIES: dict[str, dict[str, Case]] = {
    "keys": {
        "at the top, a near one": LOAD.replace("name", "nmae", 1),
        "at the top, none near": "zzz = 1\n" + LOAD,
        "a table, a near one": LOAD + "[evalaute.perplexity]\n",
        "in the model": HEAD + 'revison = "main"\n[load.full]\n',
        "in a method, a near one": TRAIN.replace("[train.sft]\n", "[train.sft]\nlearning_rte = 1e-3\n"),
        "in a method, none near": LOAD + "zzz = 1\n",
        "two in one table": LOAD + 'dtpye = "float32"\nquantize = true\n',
        "of another format": TRAIN + 'field = "messages"\n',
        "in a nested table": TRAIN + 'fields = { promt = "question" }\n',
        "that must be quoted": LOAD + '"a b" = 1\n',
        "missing at the top": '[model]\nbase = "file:model"\n[load.full]\n',
        "missing in the model": LOAD.replace('base = "file:model"\n', ""),
        "missing in a data set": TRAIN.replace('source = "file:train.jsonl"\n', ""),
        "missing format, and what it would allow": TRAIN.replace("format", "system"),
        "missing in the container": LOAD + "[container]\n",
        "missing in a stage's container": TRAIN + "[container.train]\n",
        "a container for what is done on the host": LOAD + f'[container]\nimage = "{DIGEST}"\n[container.push]\n',
    },
    "values": {
        "a size without a unit": LOAD + f'[container]\nimage = "{DIGEST}"\nmemory = "24"\n',
        "text for a number": LOAD + '[adapt.lora]\nrank = "16"\n',
        "a fraction for a whole number": LOAD + "[adapt.lora]\nrank = 0.5\n",
        "truth for a number": LOAD + "[adapt.lora]\nrank = true\n",
        "a number for text": LOAD.replace('"x"', "3"),
        "a number for truth": HEAD + "[load.nf4]\ndouble_quant = 1\n",
        "a list for text": LOAD.replace('"x"', '["x"]'),
        "text for a table": TRAIN + 'fields = "prompt"\n',
        "below the least": LOAD + "[adapt.lora]\nrank = 0\n",
        "not more than the bound": LOAD + "[adapt.lora]\nalpha = 0\n",
        "above the most": LOAD.replace('"x"', '"x"\nseed = 4294967296'),
        "not less than the bound": LOAD + "[adapt.lora]\ndropout = 1.0\n",
        "more than JSON keeps exact": LOAD + "[adapt.lora]\nrank = 9223372036854775807\n",
        "a float more than JSON keeps exact": LOAD + "[adapt.lora]\nrank = 1e300\n",
        "a choice, a near one": LOAD + 'dtype = "bfloat6"\n',
        "a choice, none near": LOAD + 'dtype = "int4"\n',
        "another version": LOAD.replace("version = 1", "version = 2"),
        "a version in quotes": LOAD.replace("version = 1", 'version = "1"'),
        "a schema that is no text": '"$schema" = 1\n' + LOAD,
        "no name": LOAD.replace('"x"', '""'),
        "a name of two lines": LOAD.replace('"x"', '"a\\nb"'),
        "a name with a line break at its end": LOAD.replace('"x"', '"a\\n"'),
        "long text": LOAD.replace('"x"', f'"{"x " * 60}"'),
        "not a split": TRAIN + 'split = "train[:95]%"\n',
        "a template without its prompt": TRAIN + 'template = "Q: {question}"\n',
        "either of two kinds: neither": LOAD + "[adapt.lora]\ntarget_modules = 3\n",
        "either of two kinds: a near word": LOAD + '[adapt.lora]\ntarget_modules = "all_linear"\n',
        "either of two kinds: another word": LOAD + '[adapt.lora]\ntarget_modules = "q_proj"\n',
        "either of two kinds: an empty list": LOAD + "[adapt.lora]\ntarget_modules = []\n",
        "either of two kinds: wrong items": LOAD + '[adapt.lora]\ntarget_modules = ["q_proj", 3, "v_proj", true]\n',
    },
    "names": {
        "a method, a near one": LOAD.replace("load.full", "load.ful"),
        "a method, none near": LOAD + "[adapt.lora]\n[train.distil]\n",
        "a method by its key": LOAD + '[evaluate.again]\nmethod = "perplxity"\n',
        "a method that is no text": LOAD + "[evaluate.again]\nmethod = 3\n",
        "a format, a near one": TRAIN.replace("instruction", "instructions"),
        "a format, none near": TRAIN.replace("instruction", "poem"),
        "a format, and other problems": TRAIN.replace("instruction", "poem") + "max_length = 1\n",
        "a format that is no text": TRAIN.replace('"instruction"', "3"),
        "a source, a near one": base("huub:a/b"),
        "a source without a scheme": base("gpt2"),
        "an instance": LOAD + '[evaluate."a@b"]\nmethod = "perplexity"\n',
        "a data set": TRAIN.replace("data.train", 'data."../train"'),
        "two train methods": TRAIN + '[train.again]\nmethod = "sft"\n',
        "three load methods": LOAD + '[load.nf4]\n[load.more]\nmethod = "full"\n',
        "options outside of a method": LOAD + "[train]\nepochs = 1\nbatch_size = 8\n",
        "a data set without a name": LOAD + '[data]\nsource = "file:a.jsonl"\n',
        "no table where one is needed": 'version = 1\nname = "x"\nmodel = "file:model"\nload = "full"\ndata = 1\n',
    },
    "rules": {
        "no model": 'version = 1\nname = "x"\n[load.full]\n',
        "no stage": HEAD,
        "adapt without load": HEAD + "[adapt.lora]\n",
        "train without adapt": LOAD + "[train.sft]\n" + DATA,
        "evaluate without load": HEAD + '[evaluate.perplexity]\ndata = "train"\n' + DATA,
        "push without train": LOAD + "[push.folder]\n",
        "an unused data set": LOAD + DATA,
        "a data set that is missing": LOAD + "[adapt.lora]\n[train.sft]\n[evaluate.perplexity]\n",
        "a metric without its data set": SMALL + '[evaluate.bleu]\ndata = "holdout"\n',
        "a metric without references": '"prompt"'.join(SMALL.rsplit('"instruction"', 1)),
        "the data set of eval_steps": TRAIN.replace("[train.sft]\n", "[train.sft]\neval_steps = 5\n"),
        "a warmup given twice": TRAIN.replace("[train.sft]\n", "[train.sft]\nwarmup_steps = 5\nwarmup_ratio = 0.1\n"),
        "a micro batch that does not divide": TRAIN.replace(
            "[train.sft]\n", "[train.sft]\nbatch_size = 16\nmicro_batch_size = 6\n"
        ),
        "a folder of the Hub": SMALL + '[evaluate.harness]\nfolder = "hub:a/b"\n',
        "a folder without a path": SMALL + '[evaluate.harness]\nfolder = "file:"\n',
        "windows that leave tokens out": SMALL.replace("perplexity]", "perplexity]\nwindow = 64\nstride = 64"),
        "a stride without a window": SMALL.replace("perplexity]", "perplexity]\nstride = 64"),
        "an option without what it needs": TRAIN.replace("[train.sft]\n", '[train.sft]\neval_data = "train"\n'),
        "an image by its tag": LOAD + '[container]\nimage = "recipe-cuda:12"\n',
        "a tag for one stage": TRAIN + f'[container]\nimage = "{DIGEST}"\n[container.train]\nimage = "x:1"\n',
        "the container of a stage that is not there": LOAD + f'[container.train]\nimage = "{DIGEST}"\n',
        "an image by tag and digest": LOAD + f'[container]\nimage = "Recipe-CUDA:12@{DIGEST}"\n',
    },
    "gate": {
        "no rule": SMALL + '[gate]\n"exact_match" = 0.6\n',
        "no comparison": SMALL + '[gate]\nexact_match = "0.6"\n',
        "no number": SMALL + '[gate]\nexact_match = ">= high"\n',
        "two comparisons": SMALL + '[gate]\nexact_match = ">= 0.6 < 0.9"\n',
        "a multiple of something else": SMALL + '[gate]\n"perplexity.loss" = "<= 0.5 * after"\n',
        "a line break": SMALL + '[gate]\nexact_match = ">= 0.6\\n"\n',
        "a name without quotes": SMALL + '[gate]\nperplexity.loss = "<= 2"\n',
        "an evaluation, a near one": SMALL + '[gate]\n"perplexty.loss" = "<= 2"\n',
        "an evaluation, none near": SMALL + '[gate]\n"rouge.rougeL" = ">= 0.3"\n',
        "a metric, a near one": SMALL + '[gate]\n"perplexity.los" = "<= 2"\n',
        "a metric, none near": SMALL + '[gate]\n"exact_match.f1" = ">= 2"\n',
        "an evaluation that measures nothing": SMALL + '[evaluate.samples]\n[gate]\n"samples" = ">= 2"\n',
        "several metrics by the instance alone": SMALL + '[evaluate.rouge]\n[gate]\nrouge = ">= 0.3"\n',
        "a ratio": SMALL + '[gate]\nperplexity_ratio = "<= 0.5"\n',
        "a ratio of one of several metrics": SMALL + '[gate]\n"perplexity.loss_ratio" = "<= 0.5 * before"\n',
        "evaluations that are no table": "evaluate = 1\n" + LOAD + '[gate]\nperplexity = "< 9"\n',
        "no training": LOAD + '[evaluate.perplexity]\ndata = "train"\n[gate]\nperplexity = "< 9"\n' + DATA,
        "no table": "gate = 1\n" + LOAD,
        "in an override": (SMALL, 'gate.exact_match="high"'),
    },
    "sources": {
        "hub: three parts": base("hub:a/b/c"),
        "hub: nothing": base("hub:"),
        "hub: a page's address": base("hub:https://host.example/a/b"),
        "file: nothing": base("file:"),
        "wheel: no digest": base("wheel:tiny==1.0/tiny/model.gguf"),
        "wheel: a short digest": base(WHEEL[:-1]),
        "wheel: no version": base(WHEEL.replace("==1.0", "")),
        "wheel: an inexact version": base(WHEEL.replace("==1.0", ">=1.0")),
        "wheel: no file": base(WHEEL.replace("/tiny/model.gguf", "")),
        "in a data set": TRAIN.replace("file:train.jsonl", "train.jsonl"),
    },
    "overrides": {
        "no value": (LOAD, "name"),
        "nothing after the sign": (LOAD, "name="),
        "not a key": (LOAD, "adapt lora.rank=4"),
        "an empty part": (LOAD, "adapt..rank=4"),
        "not one value": (LOAD, "name=1, 2"),
        "not finite": (LOAD, "adapt.lora.alpha=nan"),
        "below what is no table": (LOAD, "name.first=1"),
        "several at once": (LOAD, "name", "seed=", "model.base.x=1"),
        "a wrong value": (LOAD, "load.full.dtype=int4"),
        "a wrong value in a table of its own": (LOAD, 'adapt.lora={ rank = 0, target_modules = ["a", 1] }'),
        "a wrong value over a right one": (LOAD, 'name="x"', "name=3"),
        "a right value over a wrong one, and another": (LOAD, "seed=-1", "seed=1", "name=3"),
        "an unknown table": (LOAD, "trian.sft.epochs=2"),
        "an unknown method": (LOAD, "train.distil.epochs=2"),
        "a key that is missing in a table it makes": (LOAD, "data.train.format=chat"),
        "in the file and in an override": (LOAD + "zzz = 1\n", "seed=-1"),
    },
}


def text_of(case: Case) -> str:
    text, *overrides = (case,) if isinstance(case, str) else case
    return refusal(text, overrides)


@pytest.mark.parametrize("family", FAMILIES)
def test_messages(family: str, golden: Golden) -> None:
    cases = [f"# {title}\n{text_of(case)}\n" for title, case in FAMILIES[family].items()]
    golden(f"validate-{family}.txt", "\n".join(cases))


DOORS: dict[str, tuple[str, bytes]] = {
    "an empty file": ("r.toml", b""),
    "comments alone": ("r.toml", b"# nothing\n"),
    "an empty file of JSON": ("r.json", b"\n"),
    "an empty object": ("r.json", b"{}"),
    "a file that ends in a string": ("r.toml", LOAD.encode()[:-20]),
    "a file that ends in a header": ("r.toml", LOAD.encode()[:-2]),
    "a file that ends in an object": ("r.json", b'{"version": 1, "name": '),
    "not UTF-8": ("r.toml", b'version = 1\nname = "caf\xe9"\n'),
    "UTF-16": ("r.toml", LOAD.encode("utf-16")),
    "ten megabytes of brackets": ("r.toml", b"a = " + b"[" * 10_000_000),
    "deep brackets": ("r.toml", b"a = " + b"[" * 1000),
    "deep brackets of JSON": ("r.json", b"[" * 1000),
    "NaN": ("r.toml", (LOAD + "[adapt.lora]\nalpha = nan\n").encode()),
    "infinity of JSON": ("r.json", b'{"alpha": -Infinity}'),
    "a key given twice": ("r.toml", (LOAD + 'dtype = "float32"\ndtype = "bfloat16"\n').encode()),
    "a table given twice": ("r.toml", (LOAD + "[load.full]\n").encode()),
    "a key of JSON given twice": ("r.json", b'{"name": "x",\n "name": "y"}'),
    "a word without quotes": ("r.toml", b"version = 1\nname = x\n"),
    "a date": ("r.toml", b"version = 2026-11-24\n"),
}


def test_messages_at_the_door(golden: Golden) -> None:
    lines = []
    for title, (file, source) in DOORS.items():
        with pytest.raises(InvalidRecipe) as refused:
            parse(source, file, syntax="json" if file.endswith("json") else "toml")
        lines.append(f"# {title}\n{refused.value}\n")
    golden("validate-door.txt", "\n".join(lines))


def test_every_message_is_one_line_of_one_form() -> None:
    for family in FAMILIES.values():
        for case in family.values():
            *problems, count = text_of(case).splitlines()
            assert len(problems) == int(count.split()[0])
            for line in problems:
                place, _, rest = line.partition(": ")
                assert place.startswith(("r.toml:", "--set "))
                assert rest.endswith((".", "?", '".', "…"))


MANY = """\
version = 2
nmae = "x"
seed = -1
[model]
bse = "file:model"
[load.fulll]
[adapt.lora]
rank = 0
alpha = "big"
[train.sft]
epochs = 0
[train.distil]
[data.train]
format = "poem"
[evaluate.perplexity]
batch_size = 1.5
"""


def test_all_problems_at_once_sorted_by_place(golden: Golden) -> None:
    golden("validate-many.txt", refusal(MANY, ["adapt.lora.dropout=2"]) + "\n")


def test_json_recipes_get_the_same_messages_at_their_own_places(golden: Golden) -> None:
    text = json.dumps(tomllib.loads(MANY), indent=2)
    of_json, of_toml = refusal(text, file="r.json"), refusal(MANY)
    golden("validate-many-json.txt", of_json + "\n")

    def without_places(messages: str) -> list[str]:
        return sorted(line.partition(": ")[2] for line in messages.splitlines())

    assert without_places(of_json) == without_places(of_toml)


def test_null_is_shown_as_json_spells_it() -> None:
    tree = {**tomllib.loads(LOAD), "seed": None, "container": None, "data": None}
    lines = refusal(json.dumps(tree), file="r.json").splitlines()
    assert [line.partition(": ")[2].partition(" Seed")[0] for line in lines[:-1]] == [
        "seed: expected a whole number, found null.",
        "container: expected a table, found null.",
        "data: expected a table, found null.",
    ]


def test_fifty_problems_are_shown_and_all_are_counted() -> None:
    text = LOAD + "".join(f"zzz{number} = 1\n" for number in range(60))
    lines = refusal(text).splitlines()
    assert len(lines) == 51
    assert lines[-1] == "60 problems, the first 50 shown"
    assert lines[49].startswith("r.toml:55:1: load.full.zzz49: unknown key.")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_and_crlf_do_not_move_the_places(newline: str) -> None:
    text = (LOAD + 'dtype = "int4"\n').replace("\n", newline)
    with pytest.raises(InvalidRecipe) as refused:
        validate_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [(problem.line, problem.column) for problem in refused.value.problems] == [(6, 9)]
    assert validate_bytes(b"\xef\xbb\xbf" + text.replace("int4", "float32").encode()).load is not None


def validate_bytes(source: bytes) -> Recipe:
    return validate(apply(parse(source, "r.toml", syntax="toml"), ()), builtins())


def test_megabytes_of_brackets_are_refused_at_once() -> None:
    started = time.process_time()
    with pytest.raises(InvalidRecipe):
        parse(b"[" * 10_000_000, "r.json", syntax="json")
    assert time.process_time() - started < 1


def test_a_recipe_keeps_its_file_folder_digests_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(SMALL)
    recipe = validate(compose(file, ["seed=8", "seed=9"]), builtins())
    assert (recipe.file, recipe.folder, recipe.source) == (str(file), tmp_path, "file:model")
    assert recipe.text is None
    assert (recipe.name, recipe.top.seed) == ("small", 9)
    assert [table.instance for table in recipe.stages()] == [
        "full",
        "lora",
        "sft",
        "perplexity",
        "exact_match",
        "folder",
    ]


def test_a_recipe_without_overrides_runs_as_it_was_written() -> None:
    assert recipe_of(SMALL).as_run() == {"r.toml": SMALL.encode()}


def test_a_recipe_with_overrides_runs_as_one_file() -> None:
    recipe = recipe_of(SMALL, ["seed=9", "container.image=" + json.dumps(DIGEST)])
    [(name, source)] = recipe.as_run().items()
    again = recipe_of(source.decode())
    assert name == "recipe.toml"
    assert again.to_table() == recipe.to_table()
    assert again.top.seed == 9
    assert again.to_table()["container"] == {"image": DIGEST}


def test_a_gate_names_its_metric_and_is_written_as_it_was() -> None:
    rules = {"exact_match": ">= 0.6", "perplexity.loss": "<= 0.5 * before", "perplexity": "<1e3"}
    text = SMALL + "[gate]\n" + "".join(f'"{name}" = "{rule}"\n' for name, rule in rules.items())
    recipe = recipe_of(text)
    metrics = ["exact_match.exact_match", "perplexity.loss", "perplexity.perplexity"]
    assert [gate.metric for gate in recipe.gates] == metrics
    assert recipe.to_table()["gate"] == rules
    again = recipe_of(to_toml(recipe.to_table()))
    assert again.gates == recipe.gates
    assert again.digest() == recipe.digest() != recipe_of(SMALL).digest()


def test_what_a_recipe_leaves_out_is_no_table() -> None:
    assert recipe_of(LOAD).to_table() == {
        "version": 1,
        "name": "x",
        "seed": 0,
        "device": "auto",
        "model": {"base": "file:model"},
        "load": {"full": {"method": "full", "dtype": "auto"}},
    }


def test_an_instance_has_its_methods_options() -> None:
    recipe = recipe_of(SMALL + '[evaluate.again]\nmethod = "exact_match"\nmax_new_tokens = 5\n')
    again = recipe.evaluate[2]
    assert (again.instance, again.method, again.options.max_new_tokens) == ("again", "exact_match", 5)


def test_an_integer_is_a_number_and_a_whole_float_is_an_integer() -> None:
    recipe = recipe_of(SMALL, ["adapt.lora.alpha=8", "adapt.lora.rank=8.0"])
    assert recipe.adapt is not None
    assert (recipe.adapt.options.alpha, recipe.adapt.options.rank) == (8.0, 8)
    assert type(recipe.adapt.options.rank) is int


@pytest.mark.parametrize(
    "reference", ["hub:a/b", "hub:gpt2", "hub:a-b/c_d.e", "file:~/model", "file:../a b", WHEEL, "file:x:y"]
)
def test_right_references(reference: str) -> None:
    assert recipe_of(base(reference)).model.base == reference


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (None, "null"),
        (3, "3"),
        (1e-05, "1e-05"),
        ("a\x1bé", '"a\\u001bé"'),
        ("x" * 61, f'"{"x" * 60}…"'),
        ([], "an empty list"),
        ([1], "a list"),
        ({}, "a table"),
    ],
)
def test_values_in_messages(value: Any, shown: str) -> None:
    assert show(value) == shown


def test_the_schema_that_a_recipe_names_for_editors_is_no_part_of_it() -> None:
    tree = tomllib.loads(SMALL)
    named = json.dumps({"$schema": "./schema/recipe.v1.schema.json", **tree})
    assert recipe_of(named, file="r.json").to_table() == recipe_of(SMALL).to_table()
    assert recipe_of('"$schema" = "x"\n' + SMALL).to_table() == recipe_of(SMALL).to_table()


@dataclass(frozen=True)
class Keys:
    """Keys that matter beside others."""

    keep: bool = option("Keep them.", default=True)
    keys: str = option("Their name.", default="k", needs="keep")


class KeysPlugin:
    @hookimpl
    def recipe_data_formats(self) -> list[DataFormat]:
        return [DataFormat(name="keys", summary="Keys", options=Keys, implementation="a:B")]


def test_a_key_of_a_data_set_that_cannot_matter_is_refused() -> None:
    catalogue = load_catalogue([KeysPlugin()], entry_points=False)
    text = TRAIN.replace("instruction", "keys") + 'keys = "x"\nmax_length = 9\n'
    assert recipe_of(text, catalogue=catalogue).data["train"].format_options.keys == "x"
    assert refusal(text + "keep = false\n", catalogue=catalogue).splitlines() == [
        "r.toml:11:1: data.train.keys: it cannot matter here: it needs keep. Remove it.",
        "1 problem",
    ]


@dataclass(frozen=True)
class ManyKinds:
    """Kinds of options that no built-in method has."""

    lists: int | tuple[str, ...] = option("A number or words.", default=0)
    choices: bool | tuple[Literal["a", "b"], ...] = option("Yes, or some of two.", default=False)
    numbers: str | tuple[float, ...] = option("A word or numbers.", default="")
    pairs: tuple[int, ...] = option("Two or more.", default=(1, 2), min_items=2)


class KindsPlugin:
    @hookimpl
    def recipe_load_methods(self) -> list[Method]:
        return [Method(name="kinds", summary="Kinds", options=ManyKinds, implementation="a:B")]


def test_messages_for_kinds_of_options_that_only_plugins_have(golden: Golden) -> None:
    text = HEAD + '[load.kinds]\nlists = "no"\nchoices = 1\nnumbers = 1\npairs = [1]\n'
    again = HEAD + '[load.kinds]\nlists = [1]\nchoices = ["c"]\npairs = 3\n'
    catalogue = load_catalogue([KindsPlugin()], entry_points=False)
    golden("validate-kinds.txt", f"{refusal(text, catalogue=catalogue)}\n\n{refusal(again, catalogue=catalogue)}\n")


class PoemPlugin:
    @hookimpl
    def recipe_data_formats(self) -> list[DataFormat]:
        return [
            DataFormat(name="poem", summary="One poem a row", options=FormatChat, implementation="a:B", kind="prompt")
        ]


def test_a_format_that_a_method_cannot_read(golden: Golden) -> None:
    catalogue = load_catalogue([PoemPlugin()], entry_points=False)
    text = TRAIN.replace("instruction", "poem") + '[evaluate.perplexity]\ndata = "train"\n'
    golden("validate-formats.txt", refusal(text, catalogue=catalogue) + "\n")


class Contradicting:
    @hookimpl
    def recipe_load_methods(self) -> list[Method]:
        wrong = [("dtype", "it is never right")]
        return [
            Method(name="never", summary="Never", options=LoadFull, implementation="a:B", check=lambda _options: wrong)
        ]


def test_a_plugins_own_check_is_a_problem_at_the_key() -> None:
    catalogue = load_catalogue([Contradicting()], entry_points=False)
    text = HEAD + '[load.never]\ndtype = "float32"\n'
    assert refusal(text, catalogue=catalogue).splitlines() == [
        "r.toml:6:1: load.never.dtype: it is never right.",
        "1 problem",
    ]


class Broken:
    __name__ = "broken_plugin"

    @hookimpl
    def recipe_train_methods(self) -> list[Method]:
        raise ModuleNotFoundError("No module named 'fast_kernels'")


@pytest.fixture
def with_broken() -> Catalogue:
    return load_catalogue([Broken()], entry_points=False)


def test_a_method_of_a_plugin_that_is_broken_says_what_broke_it(with_broken: Catalogue) -> None:
    text = LOAD + "[adapt.lora]\n[train.kto]\n"
    assert refusal(text, catalogue=with_broken).splitlines()[0] == (
        'r.toml:7:8: train.kto: unknown train method "kto". Installed: grpo, ppo, reward, rloo, sft. '
        "The plugin broken_plugin could not be loaded: ModuleNotFoundError: No module named 'fast_kernels'"
    )


def test_a_broken_plugin_does_not_break_other_recipes(with_broken: Catalogue) -> None:
    assert recipe_of(SMALL, catalogue=with_broken).train is not None


def test_composed_places_point_to_the_file() -> None:
    assert composed(LOAD).problem(("load", "full"), "m").line == 5


def test_a_stage_has_its_own_container_in_place_of_the_common_one() -> None:
    text = SMALL + (
        f'[container]\nimage = "{DIGEST}"\nmemory = "8GiB"\n[container.train]\nmemory = "16GiB"\ngpus = ["1"]\n'
    )
    table = recipe_of(text).container
    assert table is not None
    common, own = table.of_stage("load"), table.of_stage("train")
    assert common is not None
    assert own is not None
    assert (common.image, common.memory, common.gpus) == (DIGEST, "8GiB", None)
    assert (own.image, own.memory, own.gpus) == (DIGEST, "16GiB", ("1",))
    assert table.of_stage("prepare") == common


def test_one_stage_alone_in_a_container() -> None:
    table = recipe_of(SMALL + f'[container.train]\nimage = "{DIGEST}"\n').container
    assert table is not None
    assert [stage for stage in ("prepare", "load", "adapt", "train", "evaluate") if table.of_stage(stage)] == ["train"]
