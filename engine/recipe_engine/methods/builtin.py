"""The built-in plugin: descriptors only, so that a recipe is checked without a training stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.descriptors import (
    LANGUAGE_MODELS,
    DataFormat,
    Method,
    Payload,
    Requirement,
    RewardSource,
    Runner,
    Source,
)
from recipe_engine.hookmark import hookimpl
from recipe_engine.methods import fits, options
from recipe_engine.methods.harness.options import EvaluateHarness
from recipe_engine.methods.hub_token import hub_needs
from recipe_engine.methods.metrics import options as metrics
from recipe_engine.methods.metrics.measures import ROUGES
from recipe_engine.methods.rewards import options as rewards
from recipe_engine.methods.sources import references
from recipe_engine.training.groups.options import Groups, TrainGrpo, TrainRloo
from recipe_engine.training.layout import layout_of
from recipe_engine.training.options import TrainReward, TrainSft
from recipe_engine.training.ppo.options import TrainPpo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.descriptors import ModelKind
    from recipe_engine.training.on_policy import OnPolicy
    from recipe_engine.training.options import Training

_TORCH = Requirement(package="torch", specifier=">=2.13")
_TRANSFORMERS = Requirement(
    package="transformers",
    specifier=">=5.23",
    symbols=("transformers:AutoModelForCausalLM", "transformers:Trainer"),
)
_PEFT = Requirement(package="peft", specifier=">=0.21", symbols=("peft:LoraConfig", "peft:get_peft_model"))
_ACCELERATE = Requirement(package="accelerate", specifier=">=1.15")
_SACREBLEU = Requirement(
    package="sacrebleu",
    specifier=">=2.5",
    symbols=("sacrebleu.metrics:BLEU", "sacrebleu.metrics:CHRF"),
    extra="metrics",
)
_ROUGE = Requirement(
    package="rouge-score",
    specifier=">=0.1.2",
    symbols=("rouge_score.rouge_scorer:RougeScorer",),
    extra="metrics",
)
_HARNESS = Requirement(
    package="lm_eval",
    specifier=">=0.4.13,<0.5",
    symbols=("lm_eval.evaluator:evaluate", "lm_eval.tasks:TaskManager", "lm_eval.models.huggingface:HFLM"),
    extra="harness",
)
_TRL = Requirement(
    package="trl",
    specifier=">=1.16,<1.17",
    symbols=("trl:GRPOTrainer", "trl:RLOOTrainer"),
    extra="groups",
)
_VLLM = Requirement(
    package="vllm",
    specifier=">=0.30,<0.31",
    symbols=("vllm:LLM", "vllm:SamplingParams", "vllm.lora.request:LoRARequest"),
    extra="vllm",
)
_HUB = Requirement(package="huggingface_hub", symbols=("huggingface_hub:HfApi",))
_MODEL_PACKAGES = ("torch", "transformers")
_ADAPTABLE: frozenset[ModelKind] = frozenset({*LANGUAGE_MODELS, "encoder"})
# What evaluations have in common that get the model.
_ASKING: dict[str, Any] = {
    "requires": (_TORCH, _TRANSFORMERS),
    "packages": _MODEL_PACKAGES,
    "data": lambda chosen: {"eval": chosen.data},
    "takes": LANGUAGE_MODELS,
}
_QUANTIZED_PACKAGES = (*_MODEL_PACKAGES, "bitsandbytes")


def _bitsandbytes(symbol: str) -> Requirement:
    return Requirement(package="bitsandbytes", specifier=">=0.50", symbols=(f"bitsandbytes.{symbol}",), extra="nf4")


def _for_training(chosen: Training) -> tuple[Requirement, ...]:
    """What a training's options need besides what every training needs."""
    return (_bitsandbytes("optim:AdamW"),) if chosen.optimizer != "adamw" else ()


def _for_rollouts(chosen: OnPolicy) -> tuple[Requirement, ...]:
    """What writes the answers."""
    return (_VLLM,) if chosen.rollout == "vllm" else ()


@hookimpl(trylast=True)
def recipe_load_methods() -> Iterator[Method]:
    """Weights into memory."""
    yield Method(
        name="full",
        summary="Load the weights without quantization",
        options=options.LoadFull,
        implementation="recipe_engine.methods.load_full:LoadFull",
        gives="causal_lm",
        check_model=fits.language_model_fits_outline,
        requires=(_TORCH, _TRANSFORMERS),
        packages=_MODEL_PACKAGES,
    )
    yield Method(
        name="encoder",
        summary="Load an encoder with a head that gives a score",
        options=options.LoadEncoder,
        implementation="recipe_engine.methods.load_encoder:LoadEncoder",
        gives="encoder",
        check_model=fits.encoder_fits_outline,
        seeded=True,
        requires=(_TORCH, _TRANSFORMERS),
        packages=_MODEL_PACKAGES,
    )
    yield Method(
        name="nf4",
        summary="Quantize to 4-bit NormalFloat",
        options=options.LoadNf4,
        implementation="recipe_engine.methods.load_nf4:LoadNf4",
        gives="quantized_lm",
        check_model=fits.language_model_fits_outline,
        requires=(_TORCH, _TRANSFORMERS, _bitsandbytes("nn:Linear4bit")),
        packages=_QUANTIZED_PACKAGES,
    )
    yield Method(
        name="int8",
        summary="Quantize to 8-bit integers",
        options=options.LoadInt8,
        implementation="recipe_engine.methods.load_int8:LoadInt8",
        gives="quantized_lm",
        check_model=fits.language_model_fits_outline,
        requires=(_TORCH, _TRANSFORMERS, _bitsandbytes("nn:Linear8bitLt")),
        packages=_QUANTIZED_PACKAGES,
    )


@hookimpl(trylast=True)
def recipe_adapt_methods() -> Iterator[Method]:
    """What becomes trainable."""
    yield Method(
        name="lora",
        summary="Low-rank adapters",
        options=options.AdaptLora,
        implementation="recipe_engine.methods.adapt_lora:AdaptLora",
        takes=_ADAPTABLE,
        gives="adapter",
        gives_for={"encoder": "encoder_adapter"},
        new_tokens=lambda chosen: chosen.new_tokens or (),
        check=lambda chosen: chosen.contradictions(),
        clashes=fits.lora_clashes,
        check_model=fits.lora_fits_outline,
        seeded=True,
        requires=(_TORCH, _PEFT),
        packages=(*_MODEL_PACKAGES, "peft"),
    )
    yield Method(
        name="full",
        summary="All weights of the model",
        options=options.AdaptFull,
        implementation="recipe_engine.methods.adapt_full:AdaptFull",
        takes=frozenset({"causal_lm", "encoder"}),
        gives="causal_lm",
        gives_for={"encoder": "encoder"},
        clashes=fits.full_clashes,
        check_model=fits.full_fits_outline,
        requires=(_TORCH, _TRANSFORMERS),
        packages=_MODEL_PACKAGES,
    )


@hookimpl(trylast=True)
def recipe_train_methods() -> Iterator[Method]:
    """How it is trained."""
    yield Method(
        name="sft",
        summary="Supervised fine-tuning",
        options=TrainSft,
        implementation="recipe_engine.methods.train_sft:TrainSft",
        revision=4,
        seeded=True,
        requires=(_TORCH, _TRANSFORMERS, _ACCELERATE),
        requires_for=_for_training,
        packages=(*_MODEL_PACKAGES, "peft", "accelerate"),
        data=lambda chosen: chosen.data_sets(),
        takes=frozenset({"causal_lm", "adapter"}),
        check=lambda chosen: chosen.contradictions(),
        settled=lambda chosen, outline: {"layout": layout_of(outline.config, chosen.layout)},
        devices=lambda chosen: chosen.devices(),
    )
    yield Method(
        name="reward",
        summary="A reward model from pairs of a better and a worse answer",
        options=TrainReward,
        implementation="recipe_engine.methods.train_reward:TrainReward",
        revision=3,
        seeded=True,
        requires=(_TORCH, _TRANSFORMERS, _ACCELERATE),
        requires_for=_for_training,
        packages=(*_MODEL_PACKAGES, "peft", "accelerate"),
        data=lambda chosen: chosen.data_sets(),
        data_kinds={role: frozenset({"preference"}) for role in ("train", "eval")},
        takes=frozenset({"causal_lm", "adapter", "encoder", "encoder_adapter"}),
        gives="reward_model",
        check=lambda chosen: chosen.contradictions(),
        clashes=fits.reward_clashes,
        settled=lambda chosen, outline: {"layout": layout_of(outline.config, chosen.layout)},
        devices=lambda chosen: chosen.devices(),
    )
    yield Method(
        name="ppo",
        summary="Proximal policy optimization: more of the answers that a reward likes",
        options=TrainPpo,
        implementation="recipe_engine.methods.train_ppo:TrainPpo",
        revision=3,
        seeded=True,
        requires=(_TORCH, _TRANSFORMERS),
        requires_for=_for_rollouts,
        packages=(*_MODEL_PACKAGES, "peft"),
        data=lambda chosen: chosen.data_sets(),
        data_kinds={"prompts": frozenset({"prompt"})},
        takes=frozenset({"causal_lm", "adapter"}),
        check=lambda chosen: chosen.contradictions(),
        clashes=fits.ppo_clashes,
        determinism_for=lambda chosen: chosen.determinism(),
        devices=lambda chosen: chosen.devices(),
        settled=lambda chosen, outline: {"layout": layout_of(outline.config, chosen.layout)},
    )
    yield _groups("rloo", "REINFORCE leave one out: more of the answers that beat the others to a prompt", TrainRloo)
    yield _groups(
        "grpo", "Group relative policy optimization: more of the answers that stand out in their group", TrainGrpo
    )


def _groups(name: str, summary: str, chosen: type[Groups]) -> Method:
    """A training on several answers to each prompt."""
    return Method(
        name=name,
        summary=summary,
        options=chosen,
        implementation="recipe_engine.methods.train_groups:TrainGroups",
        revision=2,
        seeded=True,
        requires=(_TORCH, _TRANSFORMERS, _ACCELERATE, _TRL),
        requires_for=_for_rollouts,
        packages=(*_MODEL_PACKAGES, "peft", "accelerate", "datasets", "trl"),
        data=lambda chosen: chosen.data_sets(),
        data_kinds={"prompts": frozenset({"prompt"})},
        takes=frozenset({"causal_lm", "adapter"}),
        check=lambda chosen: chosen.contradictions(),
        clashes=fits.groups_clashes,
        determinism_for=lambda chosen: chosen.determinism(),
        devices=lambda chosen: chosen.devices(),
    )


@hookimpl(trylast=True)
def recipe_evaluate_methods() -> Iterator[Method]:
    """How good it is."""
    yield Method(
        name="perplexity",
        summary="Loss and perplexity of the right answers",
        options=options.EvaluatePerplexity,
        implementation="recipe_engine.methods.evaluate:Perplexity",
        revision=3,
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
        revision=2,
        requires=(_TORCH, _TRANSFORMERS),
        packages=_MODEL_PACKAGES,
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
        revision=2,
        metrics=(),
        **_ASKING,
    )
    yield Method(
        name="answers",
        summary="Answers to all rows, kept for metrics",
        options=metrics.EvaluateAnswers,
        implementation="recipe_engine.methods.evaluate:Answers",
        revision=2,
        metrics=(),
        **_ASKING,
    )
    yield Method(
        name="harness",
        summary="Tasks of the Language Model Evaluation Harness",
        options=EvaluateHarness,
        implementation="recipe_engine.methods.harness.stage:Harness",
        seeded=True,
        requires=(_TORCH, _TRANSFORMERS, _HARNESS),
        packages=(*_MODEL_PACKAGES, "datasets", "lm_eval"),
        takes=LANGUAGE_MODELS,
    )
    yield _metric("exact_match", "Share of answers that are right", metrics.EvaluateExactMatch, "ExactMatch")
    yield _metric("f1", "Words that answer and reference share", metrics.EvaluateF1, "F1")
    yield _metric("bleu", "BLEU, by sacrebleu", metrics.EvaluateBleu, "Bleu", (_SACREBLEU,))
    yield _metric("chrf", "chrF, by sacrebleu", metrics.EvaluateChrf, "Chrf", (_SACREBLEU,))
    yield _metric("rouge", "ROUGE-1, ROUGE-2 and ROUGE-L, by rouge-score", metrics.EvaluateRouge, "Rouge", (_ROUGE,))
    yield _metric("json_valid", "Share of answers that are JSON", metrics.EvaluateJsonValid, "JsonValid")


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


@hookimpl(trylast=True)
def recipe_push_methods() -> Iterator[Method]:
    """Where it goes."""
    yield Method(
        name="folder",
        summary="Export into a folder",
        options=options.PushFolder,
        implementation="recipe_engine.methods.push_folder:PushFolder",
        clashes=fits.push_clashes,
        payload=_payload,
    )
    yield Method(
        name="hub",
        summary="Publish on the Hugging Face Hub, and read it back",
        options=options.PushHub,
        implementation="recipe_engine.methods.push_hub:PushHub",
        check=lambda chosen: chosen.contradictions(),
        clashes=fits.push_clashes,
        payload=_payload,
        needs=hub_needs,
        requires=(_HUB,),
    )


def _payload(chosen: options.Published) -> Payload:
    return "merged" if chosen.merged else "adapter"


@hookimpl(trylast=True)
def recipe_sources() -> Iterator[Source]:
    """Where models and data come from."""
    yield Source(
        scheme="file",
        summary="A file or folder of this machine, relative to the recipe",
        example="file:rows.jsonl",
        check=references.check_file,
        implementation="recipe_engine.methods.sources.file:FileSource",
    )
    yield Source(
        scheme="hub",
        summary="A model of the Hugging Face Hub",
        example="hub:owner/name",
        check=references.check_hub,
        implementation="recipe_engine.methods.sources.hub:HubSource",
        revisions=True,
        requires=(_HUB,),
    )
    yield Source(
        scheme="wheel",
        summary="A file inside a Python wheel, pinned by version and digest",
        example="wheel:package==1.0/folder/file#sha256=…",
        check=references.check_wheel,
        implementation="recipe_engine.methods.sources.wheel:WheelSource",
    )


@hookimpl(trylast=True)
def recipe_data_formats() -> Iterator[DataFormat]:
    """Shapes of rows."""
    yield DataFormat(
        name="instruction",
        summary="One prompt and one answer a row",
        options=options.FormatInstruction,
        implementation="recipe_engine.methods.formats.templates:Instruction",
    )
    yield DataFormat(
        name="chat",
        summary="A conversation a row",
        options=options.FormatChat,
        implementation="recipe_engine.methods.formats.templates:Chat",
    )
    yield DataFormat(
        name="text",
        summary="A text a row, all of it learned",
        options=options.FormatText,
        implementation="recipe_engine.methods.formats.others:Text",
    )
    yield DataFormat(
        name="preference",
        summary="A prompt, a better and a worse answer a row",
        options=options.FormatPreference,
        implementation="recipe_engine.methods.formats.others:Preference",
        kind="preference",
    )
    yield DataFormat(
        name="prompt",
        summary="A question a row, without an answer",
        options=options.FormatPrompt,
        implementation="recipe_engine.methods.formats.others:Prompt",
        kind="prompt",
    )


@hookimpl(trylast=True)
def recipe_reward_sources() -> Iterator[RewardSource]:
    """What judges answers."""
    yield RewardSource(
        name="recipe",
        summary="The reward model that another recipe makes",
        options=rewards.RewardRecipe,
        implementation="recipe_engine.methods.rewards.models:RecipeReward",
        packages=_MODEL_PACKAGES,
        timed=False,
    )
    yield RewardSource(
        name="model",
        summary="A model that classifies texts",
        options=rewards.RewardModel,
        implementation="recipe_engine.methods.rewards.models:ModelReward",
        requires=(_TORCH, _TRANSFORMERS),
        packages=(*_MODEL_PACKAGES, "tokenizers"),
        source=lambda chosen: chosen.source(),
        timed=False,
    )
    yield RewardSource(
        name="pattern",
        summary="Whether a regular expression is found",
        options=rewards.RewardPattern,
        implementation="recipe_engine.methods.rewards.texts:PatternReward",
        check=lambda chosen: chosen.check(),
    )
    yield RewardSource(
        name="json_schema",
        summary="Whether the answer is JSON that a schema allows",
        options=rewards.RewardJsonSchema,
        implementation="recipe_engine.methods.rewards.texts:JsonSchemaReward",
        requires=(Requirement(package="jsonschema", symbols=("jsonschema:Draft202012Validator",)),),
        packages=("jsonschema",),
        check=lambda chosen: chosen.check(),
        source=lambda chosen: chosen.source(),
        source_kind="data",
    )


@hookimpl(trylast=True)
def recipe_runners() -> Iterator[Runner]:
    """Where stages are executed."""
    yield Runner(
        name="process",
        summary="A worker process of this machine",
        implementation="recipe_engine.runners.process:ProcessRunner",
    )
    yield Runner(
        name="container",
        summary="A worker in a container of a pinned image, without a network",
        implementation="recipe_engine.runners.container:ContainerRunner",
    )
