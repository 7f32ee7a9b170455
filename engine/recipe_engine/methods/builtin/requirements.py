"""What built-in methods need of other packages."""

from __future__ import annotations

from recipe_engine.descriptors import Requirement

TORCH = Requirement(package="torch", specifier=">=2.13")
TRANSFORMERS = Requirement(
    package="transformers",
    specifier=">=5.23",
    symbols=("transformers:AutoModelForCausalLM", "transformers:Trainer"),
)
PEFT = Requirement(package="peft", specifier=">=0.21", symbols=("peft:LoraConfig", "peft:get_peft_model"))
ACCELERATE = Requirement(package="accelerate", specifier=">=1.15")
SACREBLEU = Requirement(
    package="sacrebleu",
    specifier=">=2.5",
    symbols=("sacrebleu.metrics:BLEU", "sacrebleu.metrics:CHRF"),
    extra="metrics",
)
ROUGE = Requirement(
    package="rouge-score",
    specifier=">=0.1.2",
    symbols=("rouge_score.rouge_scorer:RougeScorer",),
    extra="metrics",
)
HARNESS = Requirement(
    package="lm_eval",
    specifier=">=0.4.13,<0.5",
    symbols=("lm_eval.evaluator:evaluate", "lm_eval.tasks:TaskManager", "lm_eval.models.huggingface:HFLM"),
    extra="harness",
)
TRL = Requirement(
    package="trl",
    specifier=">=1.16,<1.17",
    symbols=("trl:GRPOTrainer", "trl:RLOOTrainer"),
    extra="groups",
)
VLLM = Requirement(
    package="vllm",
    specifier=">=0.30,<0.31",
    symbols=("vllm:LLM", "vllm:SamplingParams", "vllm.lora.request:LoRARequest"),
    extra="vllm",
)
HUB = Requirement(package="huggingface_hub", symbols=("huggingface_hub:HfApi",))
MODEL_PACKAGES = ("torch", "transformers")


def bitsandbytes(symbol: str) -> Requirement:
    """That it is there, with a name of its own."""
    return Requirement(package="bitsandbytes", specifier=">=0.50", symbols=(f"bitsandbytes.{symbol}",), extra="nf4")
