"""Built-in evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.descriptors import LANGUAGE_MODELS, Method
from recipe_engine.hookmark import hookimpl
from recipe_engine.methods import fits, options
from recipe_engine.methods.builtin.requirements import HARNESS, MODEL_PACKAGES, ROUGE, SACREBLEU, TORCH, TRANSFORMERS
from recipe_engine.methods.harness.options import EvaluateHarness
from recipe_engine.methods.metrics import options as metrics
from recipe_engine.methods.metrics.measures import ROUGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.descriptors import Requirement

# What evaluations have in common that get the model.
_ASKING: dict[str, Any] = {
    "requires": (TORCH, TRANSFORMERS),
    "packages": MODEL_PACKAGES,
    "data": lambda chosen: {"eval": chosen.data},
    "takes": LANGUAGE_MODELS,
}


@hookimpl(trylast=True)
def recipe_evaluate_methods() -> Iterator[Method]:
    """How good it is."""
    yield from _of_models()
    yield Method(
        name="harness",
        summary="Tasks of the Language Model Evaluation Harness",
        options=EvaluateHarness,
        implementation="recipe_engine.methods.harness.stage:Harness",
        seeded=True,
        requires=(TORCH, TRANSFORMERS, HARNESS),
        packages=(*MODEL_PACKAGES, "datasets", "lm_eval"),
        takes=LANGUAGE_MODELS,
    )
    yield _metric("exact_match", "Share of answers that are right", metrics.EvaluateExactMatch, "ExactMatch")
    yield _metric("f1", "Words that answer and reference share", metrics.EvaluateF1, "F1")
    yield _metric("bleu", "BLEU, by sacrebleu", metrics.EvaluateBleu, "Bleu", (SACREBLEU,))
    yield _metric("chrf", "chrF, by sacrebleu", metrics.EvaluateChrf, "Chrf", (SACREBLEU,))
    yield _metric("rouge", "ROUGE-1, ROUGE-2 and ROUGE-L, by rouge-score", metrics.EvaluateRouge, "Rouge", (ROUGE,))
    yield _metric("json_valid", "Share of answers that are JSON", metrics.EvaluateJsonValid, "JsonValid")


def _of_models() -> Iterator[Method]:
    """Those that get the model itself."""
    yield Method(
        name="perplexity",
        summary="Loss and perplexity of the right answers",
        options=options.EvaluatePerplexity,
        implementation="recipe_engine.methods.evaluate:Perplexity",
        revision=7,
        check=lambda chosen: chosen.contradictions(),
        check_model=fits.perplexity_fits_outline,
        whole_rows=lambda chosen: chosen.window is not None,
        compares=True,
        metrics=("loss", "perplexity"),
        **_ASKING,
    )
    yield Method(
        name="preference",
        summary="Share of pairs in which the better answer has the higher score",
        options=options.EvaluatePreference,
        implementation="recipe_engine.methods.evaluate:PreferenceAccuracy",
        revision=4,
        requires=(TORCH, TRANSFORMERS),
        packages=MODEL_PACKAGES,
        data=lambda chosen: {"eval": chosen.data},
        data_kinds={"eval": frozenset({"preference"})},
        takes=frozenset({"reward_model"}),
        metrics=("accuracy", "margin", "calibration_error"),
    )
    yield Method(
        name="samples",
        summary="A few answers to read",
        options=options.EvaluateSamples,
        implementation="recipe_engine.methods.evaluate:Samples",
        revision=3,
        metrics=(),
        **_ASKING,
    )
    yield Method(
        name="answers",
        summary="Answers to all rows, kept for metrics",
        options=metrics.EvaluateAnswers,
        implementation="recipe_engine.methods.evaluate:Answers",
        revision=3,
        metrics=(),
        **_ASKING,
    )


def _metric(
    name: str, summary: str, chosen: type[metrics.Measured], code: str, needed: tuple[Requirement, ...] = ()
) -> Method:
    """A method that measures answers. The seed draws the rows of its intervals, which are no part of its artifact."""
    return Method(
        name=name,
        summary=summary,
        options=chosen,
        implementation=f"recipe_engine.methods.metrics.stage:{code}",
        requires=needed,
        packages=tuple(requirement.package for requirement in needed),
        data=lambda chosen: {"eval": chosen.data},
        takes=LANGUAGE_MODELS,
        answers=lambda chosen: chosen.answers(),
        compares=True,
        metrics=ROUGES if name == "rouge" else (name,),
    )
