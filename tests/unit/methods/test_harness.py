"""Tasks of lm-eval: its own numbers on the model in memory, and nothing of a task file that is not data."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests import tiny

from recipe_engine.contract import SourceRequest, StageRequest
from recipe_engine.errors import DataRejected, UnresolvedInput
from recipe_engine.keys import source_digest
from recipe_engine.methods.harness.options import EvaluateHarness
from recipe_engine.methods.harness.stage import Harness
from recipe_engine.methods.sources.file import FileSource

CAPITALS = """\
task: capitals
tag: places
include: shared/common.yaml
dataset_kwargs:
  data_files: {test: data/capitals.jsonl}
output_type: multiple_choice
doc_to_text: "Q: {{question}}\\nA:"
doc_to_choice: ["Paris", "Rome", "Bonn"]
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
NEXT = """\
task: next
include: shared/common.yaml
dataset_kwargs:
  data_files: {test: data/next.jsonl}
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["."], max_gen_toks: 4}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
  - {metric: bleu, aggregation: bleu, higher_is_better: true}
"""
FILES = {
    "capitals.yaml": CAPITALS,
    "next.yaml": NEXT,
    "both.yaml": "group: both\ntask: [capitals, next]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n",
    "shared/common.yaml": "dataset_path: json\ntest_split: test\nfewshot_split: test\n",
    "data/capitals.jsonl": '{"question": "France?", "label": 0}\n{"question": "Italy?", "label": 1}\n'
    '{"question": "Germany?", "label": 2}\n{"question": "Lazio?", "label": 1}\n',
    "data/next.jsonl": '{"question": "1, 2,", "answer": "3"}\n{"question": "2, 3,", "answer": "4"}\n'
    '{"question": "3, 4,", "answer": "5"}\n',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / "tasks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path / "tasks"


def request_of(root: Path, folder: Path, model: Any, tokenizer: Path, **options: Any) -> StageRequest:
    asked = SourceRequest(reference="file:tasks", folder=folder.parent, cache=root, kind="folder")
    return tiny.stage_request(
        root,
        EvaluateHarness(folder="file:tasks", **options),
        node="evaluate.harness@base",
        source=FileSource().fetch(asked, tiny.Recorder()),
        model=model,
        tokenizer=tokenizer,
    )


def lm_evals_own(folder: Path, model: Any, tokenizer: Path, **how: Any) -> dict[str, Any]:
    """What lm-eval's entry point says, without the engine."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoTokenizer

    lm = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(tokenizer), batch_size=3)
    with contextlib.chdir(folder):
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        found = simple_evaluate(lm, tasks=["capitals", "next"], task_manager=manager, bootstrap_iters=1000, **how)
    assert found is not None
    results: dict[str, Any] = found["results"]
    return results


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"fewshot": 2, "limit": 1}])
def test_the_numbers_are_lm_evals_own(
    tmp_path: Path, folder: Path, llama: Path, how: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "True")  # as scikit-learn does, which lm-eval's entry point imports
    model = tiny.load_model(llama)
    result = Harness().run(request_of(tmp_path, folder, model, llama, batch_size=3, **how))
    wanted = lm_evals_own(folder, model, llama, num_fewshot=how.get("fewshot"), limit=how.get("limit"))
    assert result.metrics == {
        "capitals.acc": wanted["capitals"]["acc,none"],
        "next.exact_match": wanted["next"]["exact_match,none"],
        "next.bleu": wanted["next"]["bleu,none"],
    }
    for name, value in result.facts["stderr"].items():
        task, metric = name.split(".")
        assert value == pytest.approx(wanted[task][f"{metric}_stderr,none"], nan_ok=True)
    if not how:
        assert set(result.facts["stderr"]) == set(result.metrics)
        assert result.facts["rows"] == {"capitals": 4, "next": 3}
        assert result.facts["versions"]["capitals"] == "1.0"


def test_tasks_are_chosen_by_name_group_and_tag(tmp_path: Path, folder: Path, llama: Path) -> None:
    model = tiny.load_model(llama)
    for chosen, metrics in (
        (("places",), {"capitals.acc"}),
        (("both",), {"both.acc", "capitals.acc", "next.exact_match", "next.bleu"}),
    ):
        assert set(Harness().run(request_of(tmp_path, folder, model, llama, tasks=chosen)).metrics) == metrics
    with pytest.raises(DataRejected, match=r"there is no task captials\.") as refused:
        Harness().run(request_of(tmp_path, folder, model, llama, tasks=("captials",)))
    assert refused.value.hint == "The folder has both, capitals, next, places."


def test_the_chat_template_is_used_where_it_is_asked_for(tmp_path: Path, folder: Path, llama: Path) -> None:
    (folder / "next.yaml").unlink()
    model, asked = tiny.load_model(llama), []
    model.register_forward_pre_hook(lambda _module, _args, given: asked.append(given), with_kwargs=True)
    model.register_forward_pre_hook(lambda _module, args: asked.append(args))
    for template in (False, True):
        Harness().run(request_of(tmp_path, folder, model, llama, tasks=("capitals",), chat_template=template))
    widths = [entry[0].shape[1] for entry in asked if isinstance(entry, tuple) and entry]
    assert max(widths[len(widths) // 2 :]) > max(widths[: len(widths) // 2]), "the template's own text is read too"


def test_the_model_is_only_borrowed(tmp_path: Path, folder: Path, llama: Path) -> None:
    """Its head is not tied anew either: an embedding that was trained apart would be lost."""
    (folder / "next.yaml").unlink()
    model = tiny.adapted_model(tmp_path, llama, dropout=0.2).train()
    model.base_model.model.config.tie_word_embeddings = True
    before = tiny.model_state(model)
    first, second = (request_of(tmp_path, folder, model, llama, tasks=("capitals",)) for _ in range(2))
    result = Harness().run(first)
    tiny.assert_same_state(tiny.model_state(model), before, generators=False)
    assert model.get_input_embeddings().weight is not model.base_model.model.lm_head.weight
    assert "tie_weights" not in vars(model)
    assert Harness().run(second) == result
    assert tiny.folder_digests(first.output) == tiny.folder_digests(second.output)
    assert first.reporter.progressed[-1] == (4, 4, "rows")  # type: ignore[attr-defined]


BAD = {
    "a function": ("doc_to_text: !function utils.text\n", "it names the Python function utils.text"),
    "a function in a list": ("metric_list: [{metric: !function utils.score}]\n", "the Python function utils.score"),
    "a class": ("class: !function task.Mine\n", "it names the Python function task.Mine"),
    "a named class": ("class: os.system\n", "class is code"),
    "a data set with code": ("custom_dataset: utils.load\n", "custom_dataset is code"),
    "rows through code": ("process_docs: utils.rows\n", "process_docs is code"),
    "code that is run": ("unsafe_code: true\n", "unsafe_code is code"),
    "a data set of the Hub": ("dataset_path: Rowan/hellaswag\n", "dataset_path: Rowan/hellaswag is no file"),
    "a file elsewhere": ("dataset_kwargs: {data_files: ../secret.jsonl}\n", "data_files: ../secret.jsonl is no file"),
    "an absolute path": ("dataset_kwargs: {data_files: [/etc/passwd]}\n", "data_files: /etc/passwd is no file"),
    "an address": ("dataset_kwargs: {data_files: 'https://host/x.json'}\n", "https://host/x.json is no file"),
    "another way to name files": ("dataset_kwargs: {data_dir: /etc}\n", "dataset_kwargs.data_dir is not read here"),
    "code of a data set": ("dataset_kwargs: {trust_remote_code: true}\n", "trust_remote_code is not read here"),
    "a file that includes another": ("include: ../../other.yaml\n", "include: ../../other.yaml is no file"),
    "a file that includes what is no task": ("include: ../data/next.jsonl\n", "next.jsonl is no file *.yaml"),
    "a metric of the Hub": ("metric_list: [{metric: squad_v2}]\n", "squad_v2 is no metric of lm-eval"),
    "a metric that is fetched": ("metric_list: [{metric: acc, hf_evaluate: true}]\n", "acc would be fetched"),
    "in a group": ("group: g\ntask: [{task: capitals, dataset_path: a/b}]\n", "dataset_path: a/b is no file"),
    "an object of Python": ("task: !!python/object/apply:os.system [id]\n", "it is no plain YAML, line 1"),
    "no YAML": ("task: [\n", "it is no plain YAML"),
    "a list": ("- task\n", "it is no table"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_data_is_refused(tmp_path: Path, folder: Path, case: str) -> None:
    text, problem = BAD[case]
    (folder / "more").mkdir()
    (folder / "more" / "bad.yaml").write_text(text)
    with pytest.raises(DataRejected) as refused:
        Harness().run(request_of(tmp_path, folder, None, tmp_path))
    assert str(refused.value).startswith("file:tasks/more/bad.yaml: ")
    assert problem in str(refused.value)
    assert "A task is data" in refused.value.hint


def test_what_is_not_pinned_is_not_seen(tmp_path: Path, folder: Path, llama: Path) -> None:
    """Hidden files are no part of the folder's content; a link stands for the file that it leads to."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "next.yaml").unlink()
    (folder / "both.yaml").unlink()
    (folder / ".hidden.yaml").write_text(
        CAPITALS.replace("capitals\n", "hidden\n") + "process_docs: !function mine.rows\n"
    )
    (folder / "capitals.yaml").rename(elsewhere / "capitals.yaml")
    (folder / "capitals.yaml").symlink_to(elsewhere / "capitals.yaml")
    (elsewhere / "shared").mkdir()
    (elsewhere / "shared" / "common.yaml").write_text("doc_to_text: !function mine.text\n")
    (elsewhere / "mine.py").write_text("raise SystemExit('it was run')\n")
    result = Harness().run(request_of(tmp_path, folder, tiny.load_model(llama), llama))
    assert set(result.metrics) == {"capitals.acc"}


def test_a_template_is_kept_in_a_sandbox(tmp_path: Path, folder: Path, llama: Path) -> None:
    escape = "{{ question.__class__.__mro__[1].__subclasses__() }}"
    (folder / "next.yaml").unlink()
    (folder / "capitals.yaml").write_text(CAPITALS.replace("Q: {{question}}", escape))
    with pytest.raises(DataRejected, match=r"lm-eval cannot use a task of file:tasks: SecurityError: access to"):
        Harness().run(request_of(tmp_path, folder, tiny.load_model(llama), llama, tasks=("capitals",)))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("{{question}}", "{{qestion}}", "UndefinedError: 'qestion' is undefined"),
        ("multiple_choice", "many_choices", "many_choices"),
        ("test_split", "no_split", "Error"),
    ],
)
def test_a_task_that_cannot_be_used(
    tmp_path: Path, folder: Path, llama: Path, old: str, new: str, problem: str
) -> None:
    for name in ("capitals.yaml", "shared/common.yaml"):
        (folder / name).write_text((folder / name).read_text().replace(old, new))
    with pytest.raises(DataRejected, match="lm-eval cannot use a task of file:tasks") as refused:
        Harness().run(request_of(tmp_path, folder, tiny.load_model(llama), llama, tasks=("capitals",)))
    assert problem in str(refused.value)


def test_the_folder_is_known_by_its_content(tmp_path: Path, folder: Path) -> None:
    def digest() -> str:
        asked = SourceRequest(reference="file:tasks", folder=folder.parent, cache=tmp_path, kind="folder")
        return source_digest(FileSource().fetch(asked, tiny.Recorder()))

    first = digest()
    (folder / ".notes").write_text("not read")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("not read")
    assert digest() == first
    (folder / "data" / "capitals.jsonl").write_text(FILES["data/capitals.jsonl"].replace("Italy", "Italia"))
    second = digest()
    (folder / "data" / "next.jsonl").rename(folder / "data" / "after.jsonl")
    assert len({first, second, digest()}) == 3


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, problem in (("file", "is a file."), ("empty", "is empty."), ("gone", "there is no")):
        asked = SourceRequest(reference=f"file:{name}", folder=tmp_path, cache=tmp_path, kind="folder")
        with pytest.raises(UnresolvedInput, match=problem):
            FileSource().fetch(asked, tiny.Recorder())


def test_a_folder_without_tasks(tmp_path: Path, folder: Path) -> None:
    for file in folder.glob("*.yaml"):
        file.unlink()
    shutil.rmtree(folder / "shared")
    with pytest.raises(DataRejected, match=r"^file:tasks holds no task\."):
        Harness().run(request_of(tmp_path, folder, None, tmp_path))
