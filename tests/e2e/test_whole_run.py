"""One recipe from its model folder to its export, through the real command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests import tiny
from tests.e2e.engine import NODES, Finished, Workspace, digests, ran, statuses, write_workspace

ROOT = Path(__file__).parents[2]
TRAINED = ["train", *(node for node in NODES if node.endswith("@result")), "push.folder"]


def test_everything_runs(first_run: tuple[Workspace, Finished]) -> None:
    workspace, done = first_run
    result = done.result
    assert (result["type"], result["status"], result["error"]) == ("result", "succeeded", None)
    assert [node["id"] for node in result["nodes"]] == list(NODES)
    # All files are here, so there was nothing to fetch.
    assert statuses(result) == {node: "cached" if node == "resolve" else "ran" for node in NODES}
    for node in result["nodes"]:
        if node["artifact"]:
            assert Path(node["artifact"]["path"], "manifest.json").is_file()
            assert node["key"].startswith("sha256:")
    assert set(result["metrics"]["perplexity.perplexity"]) == {"before", "after"}
    assert result["metrics"]["perplexity.loss"]["after"] < result["metrics"]["perplexity.loss"]["before"]
    assert result["efficiency"]["trainable_parameters"] < result["efficiency"]["total_parameters"]
    assert workspace.leftovers() == []
    assert list((workspace.home / "work").iterdir()) == []


def test_the_second_time_everything_is_taken_from_the_registry(
    finished: Workspace, first_run: tuple[Workspace, Finished]
) -> None:
    again = finished.run()
    assert set(statuses(again.result).values()) == {"cached"}
    assert digests(again.result) == digests(first_run[1].result)
    assert again.result["metrics"] == first_run[1].result["metrics"]
    assert not (finished.home / "runs" / again.result["run"] / "worker.log").exists(), "no library is loaded"
    plan = json.loads(finished.recipe("plan", "--json", "tiny.toml").out)
    states = {node["id"]: node["state"] for node in plan["nodes"]}
    assert states == {node: "will run" if node.startswith("push") else "cached" for node in NODES}


# The command as its script does it; what it has imported at its end goes to standard error.
IMPORTS = """
import json, sys
from recipe_engine.cli import main
sys.argv = ["recipe", "run", "--json", "tiny.toml"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"torch", "transformers", "peft", "numpy", "tokenizers", "accelerate", "huggingface_hub"}
print(json.dumps(sorted(heavy & set(sys.modules))), file=sys.stderr)
"""


@pytest.mark.slow
def test_an_option_of_an_evaluation_runs_that_evaluation_only(finished: Workspace) -> None:
    done = finished.run("--set", "evaluate.exact_match.max_new_tokens=4")
    # The card shows the evaluation and the payload holds the recipe, so the export follows.
    answers, metric = "answers.eval-4x32", "evaluate.exact_match"
    nodes = [f"{node}@{side}" for side in ("base", "result") for node in (answers, metric)]
    assert ran(done.result) == [*nodes, "push.folder"]


@pytest.mark.slow
def test_another_metric_costs_no_new_answer(finished: Workspace) -> None:
    finished.edit("[evaluate.samples]", "[evaluate.chrf]\nmax_new_tokens = 8\n\n[evaluate.samples]")
    result = finished.run().result
    assert ran(result) == ["evaluate.chrf@base", "evaluate.chrf@result", "push.folder"]

    sides, found = result["metrics"]["chrf.chrf"], result["comparisons"]["chrf.chrf"]
    assert found["difference"] == sides["after"] - sides["before"]
    assert found["low"] <= found["difference"] <= found["high"]
    assert found["wins"] + found["losses"] + found["ties"] == 8
    facts = {node["id"]: node["facts"] for node in result["nodes"]}
    assert facts["evaluate.chrf@base"]["signature"].startswith("nrefs:1|case:mixed|")

    rows = f"{found['wins']}/{found['losses']}/{found['ties']}"
    shown = finished.recipe("show").out
    assert re.search(rf"^chrf\.chrf .*{rows}$", shown, re.MULTILINE)
    card = Path(facts["push.folder"]["folder"]) / "README.md"
    assert re.search(rf"^\| chrf\.chrf \|.* \| {rows} \|$", card.read_text(), re.MULTILINE)
    assert json.loads(finished.recipe("show", "--json").out)["comparisons"]["chrf.chrf"] == found


@pytest.mark.slow
def test_another_learning_rate_trains_again(finished: Workspace, first_run: tuple[Workspace, Finished]) -> None:
    finished.edit("learning_rate = 1e-3", "learning_rate = 5e-4")
    plan = finished.recipe("plan", "tiny.toml")
    change = "train                        will run    learning_rate 0.001 -> 0.0005; "
    settled = r"layout packed; gradient_checkpointing false; memory 0\.\d GiB\n"
    assert re.search(change + settled, plan.out)
    assert plan.out.endswith("10 cached, 1 will run, 5 depends on\n")
    process = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        cwd=finished.folder,
        env=finished.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stderr) == []  # the worker has the training stack, the engine never
    done = Finished(0, process.stdout, process.stderr)
    assert ran(done.result) == TRAINED
    why = {event["node"]: event["why"] for event in done.events if event["type"] == "node_started"}
    assert why["train"] == "learning_rate 0.001 -> 0.0005"
    assert why["evaluate.perplexity@result"] == "train changed"
    before, after = digests(first_run[1].result), digests(done.result)
    assert next(node for node in after if after[node] != before[node]) == "train"


def test_a_changed_row_is_counted(finished: Workspace) -> None:
    finished.edit_file("rows.jsonl", "What comes after 3?", "And what comes after 3?")
    plan = finished.recipe("plan", "tiny.toml").out
    assert "prepare.train                will run    data.train: 1 row changed\n" in plan
    assert "load                         cached " in plan  # another row does not quantize or load anything again


def test_names_and_comments_change_nothing(finished: Workspace) -> None:
    finished.edit('name = "tiny"', '# A comment.\nname = "other"')
    assert ran(finished.run().result) == ["push.folder"]


def test_show_and_data_show(finished: Workspace, first_run: tuple[Workspace, Finished]) -> None:
    result = first_run[1].result
    shown = finished.recipe("show", "latest")
    assert shown.code == 0
    assert f"run {result['run']}" in shown.out
    assert "perplexity.perplexity" in shown.out
    assert "trained 4,096 of " in shown.out

    told = json.loads(first_run[0].recipe("show", "--json").out)
    assert {**told, "type": "result"} == result

    rows = finished.recipe("data", "show", "tiny.toml", "--rows", "2")
    assert rows.code == 0, rows.err
    assert "<|im_start|>user\nWhat comes after 0?<|im_end|>\n<|im_start|>assistant\n»1<|im_end|>«" in rows.out
    assert rows.out.splitlines()[-1].startswith("24 rows, ")
    assert rows.err == ""

    # Looking at data is no run of the recipe: the latest is still the one that trained.
    assert json.loads(finished.recipe("show", "--json").out)["run"] == result["run"]


@pytest.mark.slow
def test_the_model_that_answers_is_the_one_that_was_evaluated(finished: Workspace) -> None:
    record = finished.last_record()
    samples = next(node for node in record["nodes"] if node["id"] == "evaluate.samples@result")
    first = json.loads((Path(samples["artifact"]["path"]) / "answers.jsonl").read_text().splitlines()[0])
    assert finished.recipe("data", "show", "tiny.toml").code == 0  # its run has no model, and is not the latest
    done = finished.recipe("generate", "latest", "--prompt", "-", "--max-new-tokens", "8", stdin=first["question"])
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("\n")
    assert done.out.strip() == first["answer"]


def test_json_and_toml_are_one_recipe(finished: Workspace) -> None:
    import tomllib

    tree = tomllib.loads(finished.recipe_file.read_text())
    (finished.folder / "tiny.json").write_text(json.dumps(tree))
    done = finished.run(recipe="tiny.json")
    assert ran(done.result) == ["push.folder"]  # it holds recipe.json now


@pytest.mark.slow
def test_a_json_recipe_makes_the_same_artifacts_from_nothing(
    workspace: Workspace, first_run: tuple[Workspace, Finished]
) -> None:
    import tomllib

    tree = tomllib.loads(workspace.recipe_file.read_text())
    (workspace.folder / "tiny.json").write_text(json.dumps(tree, sort_keys=True))
    assert digests(workspace.run(recipe="tiny.json").result) == digests(first_run[1].result)


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_another_folder_and_another_hash_seed_make_the_same_bytes(
    tmp_path: Path, first_run: tuple[Workspace, Finished], hash_seed: str
) -> None:
    # A model folder of its own, with other times and another name.
    elsewhere = write_workspace(tmp_path / f"else where {hash_seed}")
    elsewhere.variables["PYTHONHASHSEED"] = hash_seed
    done = elsewhere.run()
    assert digests(done.result) == digests(first_run[1].result)
    assert {node["id"]: node["key"] for node in done.result["nodes"]} == {
        node["id"]: node["key"] for node in first_run[1].result["nodes"]
    }
    exports = [tiny.folder_digests(space.folder / "export") for space in (elsewhere, first_run[0])]
    without_cards = [{name: data for name, data in files.items() if name != "README.md"} for files in exports]
    assert without_cards[0] == without_cards[1]


LOGITS = """
import sys
from pathlib import Path
import torch
from peft import PeftModel
from tests import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer
from recipe_engine.methods.adapt_lora import AdaptLora
from recipe_engine.methods.load_full import LoadFull
from recipe_engine.methods.options import AdaptLora as LoraOptions, LoadFull as LoadOptions

base, export, loaded, trained, scratch = map(Path, sys.argv[1:])
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(export)
batch = tokenizer(["What comes after 3?", "Hello"], return_tensors="pt", padding=True)

def logits(model):
    with torch.no_grad():
        return model.eval()(**batch).logits

plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
without = logits(plain)
exported = logits(PeftModel.from_pretrained(plain, export))

load = tiny.stage_request(scratch, LoadOptions(dtype="float32"), source=tiny.resolve(base))
model = LoadFull().restore(load, loaded)
adapt = tiny.stage_request(scratch, LoraOptions(rank=4, alpha=8), model=model)
own = logits(AdaptLora().restore(adapt, trained))
assert torch.equal(exported, own)
assert not torch.equal(exported, without)
"""


@pytest.mark.slow
def test_the_export_is_an_adapter_that_peft_loads(tmp_path: Path, first_run: tuple[Workspace, Finished]) -> None:
    """Plain PEFT on the export, against the run's own model as the engine restores it."""
    workspace, done = first_run
    artifacts = {node["id"]: node["artifact"]["path"] for node in done.result["nodes"] if node["artifact"]}
    folders = [workspace.folder / "model", workspace.folder / "export", artifacts["load"], artifacts["train"]]
    process = subprocess.run(
        [sys.executable, "-c", LOGITS, *map(str, folders), str(tmp_path)],
        cwd=ROOT,
        env=workspace.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr


def test_the_export_says_what_it_is(first_run: tuple[Workspace, Finished]) -> None:
    workspace, done = first_run
    folder = workspace.folder / "export"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"),
        *("loss.svg", "recipe.lock.json", "recipe.toml", "tokenizer.json", "tokenizer_config.json"),
    ]
    assert (folder / "recipe.toml").read_bytes() == workspace.recipe_file.read_bytes()
    card = (folder / "README.md").read_text()
    after = done.result["metrics"]["perplexity.perplexity"]["after"]
    for expected in (
        "library_name: peft",
        "# tiny",
        f"| {after:.4g} |",
        "What comes after",
        "learning_rate = 0.001",
        'dtype = "float32"',
        "| adapt | lora (rank = 4, alpha = 8.0) |",
        "| seed | 7 |",
        "| parameters | 4,096 trained of ",
    ):
        assert expected in card
    assert "None" not in card
    # No path of this machine, in any file of it.
    for path in (*folder.iterdir(), *(workspace.home / "artifacts").glob("*/*")):
        assert str(workspace.folder).encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_model_without_chat_template_and_with_other_layers(tmp_path: Path) -> None:
    space = write_workspace(tmp_path / "space", architecture="gpt2", chat_template=None)
    space.edit('format = "instruction"\n', 'format = "instruction"\ntemplate = "Q: {prompt}\\nA: "\n')
    done = space.run()
    assert done.result["metrics"]["perplexity.loss"]["after"] < done.result["metrics"]["perplexity.loss"]["before"]
    rows = space.recipe("data", "show", "tiny.toml", "--rows", "1")
    assert "Q: What comes after 0?\nA: »1<|im_end|>«" in rows.out
    config = json.loads((space.folder / "export" / "adapter_config.json").read_text())
    assert {name.rpartition(".")[2] for name in config["target_modules"]} == {"c_attn", "c_fc", "c_proj"}
    answer = space.recipe("generate", "--prompt", "What comes after 3?", "--max-new-tokens", "4")
    assert (answer.code, answer.err) == (0, "")
