"""``evaluate.harness`` -- lm-eval on the model that is in memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.errors import DataRejected
from recipe_engine.methods.harness.tasks import TASK_SUFFIX, check_tasks
from recipe_engine.training.borrow import borrowed
from recipe_engine.training.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from recipe_engine.contract import Reporter, ResolvedSource

RESULTS_FILE = "harness.json"
_FEWSHOT_SEED = 1234  # lm-eval's own, so that its numbers are these
_RESAMPLES = 1000
_OF_A_TASK = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)


class Harness:
    """Measures tasks of a folder, whose data is in it."""

    def run(self, request: StageRequest) -> StageResult:
        """Metrics: ``<task>.<metric>``, with a filter ``<task>.<metric>.<filter>``. Facts: standard error and rows.

        Raises:
            DataRejected: where a task would run code, leads out of its folder, or cannot be used.
        """
        source = request.inputs.source
        assert source is not None  # the graph gives every evaluation with an option folder its files
        folder = request.work / "tasks"
        check_tasks(source.reference, _laid_out(source, folder), _knows_metric)
        with _quietly(request.work), _explained(source.reference, request.node):
            found = _evaluated(request, _loaded(request, folder))
        metrics, errors = _read(found["results"])
        facts = {
            "stderr": errors,
            "rows": {task: counted["effective"] for task, counted in found["n-samples"].items()},
            "versions": {task: str(version) for task, version in found["versions"].items()},
            "fewshot": dict(found["n-shot"]),
        }
        told = json.dumps({"metrics": metrics, **facts}, indent=2, sort_keys=True)
        (request.output / RESULTS_FILE).write_text(told + "\n", encoding="utf-8")
        return StageResult(metrics=metrics, facts=facts)

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """Nothing is live."""
        del request, artifact


def _laid_out(source: ResolvedSource, folder: Path) -> dict[str, Path]:
    """The files of a source in a folder of ours, where lm-eval finds what is pinned and checked and nothing else.

    Returns:
        Relative path -> where it is.
    """
    shutil.rmtree(folder, ignore_errors=True)
    found = {}
    for file in source.files:
        found[file.path] = place = folder / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.path.endswith(TASK_SUFFIX):
            shutil.copyfile(source.local_path(file.path), place)
        else:
            place.symlink_to(source.local_path(file.path).absolute())
    return found


def _knows_metric(name: str) -> bool:
    import lm_eval.api.metrics  # noqa: F401 -- fills the registry
    from lm_eval.api.registry import metric_registry

    return name in metric_registry


def _loaded(request: StageRequest, folder: Path) -> Any:
    """The tasks with their data; lm-eval takes paths in task files from the current folder.

    Raises:
        DataRejected: where the folder has no task of a name.
    """
    from lm_eval.tasks import TaskManager

    with contextlib.chdir(folder):
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        chosen = request.options.tasks or manager.all_subtasks
        unknown = [name for name in chosen if name not in manager.all_tasks]
        if unknown or not chosen:
            known = ", ".join(manager.all_tasks) or "none"
            raise DataRejected(f"{request.node}: there is no task {' '.join(unknown[:1])}.", f"The folder has {known}.")
        loaded = manager.load(list(chosen))
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (request.options.fewshot is not None and own != 0):
            task.set_config(key="num_fewshot", value=request.options.fewshot or 0)
        task.set_fewshot_seed(seed=_FEWSHOT_SEED)
    return loaded


def _evaluated(request: StageRequest, tasks: Any) -> Any:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    model, options = request.inputs.model, request.options
    assert request.inputs.tokenizer is not None  # the graph gives every evaluation a tokenizer
    with borrowed(model), _as_it_is(model), _bars_reported(request.reporter):
        lm = HFLM(
            pretrained=model,
            tokenizer=open_tokenizer(request.inputs.tokenizer),
            batch_size=options.batch_size,
            trust_remote_code=False,
        )
        found = evaluate(
            lm=lm,
            task_dict=tasks,
            limit=options.limit,
            bootstrap_iters=_RESAMPLES,
            log_samples=False,
            apply_chat_template=options.chat_template,
        )
    rows = sum(counted["effective"] for counted in found["n-samples"].values())
    request.reporter.progress(rows, rows, "rows")
    return found


def _read(results: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics and their standard errors out of lm-eval's ``acc,none`` and ``acc_stderr,none``."""
    metrics: dict[str, float] = {}
    errors: dict[str, float] = {}
    for task, values in sorted(results.items()):
        for key, value in values.items():
            metric, comma, chosen = key.partition(",")
            if not comma or isinstance(value, bool | str) or value is None:
                continue
            name = f"{task}.{metric.removesuffix('_stderr')}" + (f".{chosen}" if chosen != "none" else "")
            (errors if metric.endswith("_stderr") else metrics)[name] = float(value)
    return metrics, errors


@contextlib.contextmanager
def _quietly(work: Path) -> Iterator[None]:
    """For the time of the block: templates in a sandbox, copies of data in the work area, and no processes besides."""
    import datasets
    import lm_eval.utils
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    sandbox = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    sandbox.filters.update(lm_eval.utils.env.filters)
    templates, cache = lm_eval.utils.env, datasets.config.HF_DATASETS_CACHE
    alone = os.environ.get("DISABLE_MULTIPROC")
    lm_eval.utils.env, datasets.config.HF_DATASETS_CACHE = sandbox, work / "datasets"
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        yield
    finally:
        lm_eval.utils.env, datasets.config.HF_DATASETS_CACHE = templates, cache
        os.environ.pop("DISABLE_MULTIPROC")
        os.environ.update({"DISABLE_MULTIPROC": alone} if alone is not None else {})


@contextlib.contextmanager
def _explained(reference: str, node: str) -> Iterator[None]:
    """What a task leads lm-eval to, in our terms; memory that is used up is no fault of a task."""
    from datasets.exceptions import DatasetsError
    from jinja2 import TemplateError

    try:
        yield
    except (DatasetsError, TemplateError, *_OF_A_TASK) as error:
        raise DataRejected(
            f"{node}: lm-eval cannot use a task of {reference}: {type(error).__name__}: {error}",
            "Try the folder with lm-eval itself: lm-eval run --include_path FOLDER --tasks TASK.",
        ) from error


@contextlib.contextmanager
def _as_it_is(model: Any) -> Iterator[None]:
    """lm-eval ties the head of every model anew; one whose embedding was trained apart would lose what it learned."""
    model.tie_weights = lambda *_, **__: None
    try:
        yield
    finally:
        del model.tie_weights


@contextlib.contextmanager
def _bars_reported(reporter: Reporter) -> Iterator[None]:
    """What lm-eval would draw in the terminal is reported instead."""
    from lm_eval.models import huggingface

    drawn = huggingface.tqdm

    class Bar(drawn):  # type: ignore[valid-type, misc]
        def display(self, *_: Any, **__: Any) -> None:
            if self.total:
                reporter.progress(self.n, self.total, "requests")

    huggingface.tqdm = Bar
    try:
        yield
    finally:
        huggingface.tqdm = drawn
