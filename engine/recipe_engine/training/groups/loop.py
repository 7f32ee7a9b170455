"""RLOO and GRPO: from prompts and a reward to a trained model and the trace of its steps."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only
from transformers import TrainerCallback  # noqa: TID253 -- a class body needs its base
from trl import GRPOConfig, RLOOConfig  # noqa: TID253 -- imported in the worker only

from recipe_engine.errors import Interrupted, StageFailed
from recipe_engine.training import checkpoint
from recipe_engine.training.batches import Plan, plan_batches
from recipe_engine.training.groups.options import TrainGrpo, TrainRloo
from recipe_engine.training.groups.trainer import GroupTrainer, Grpo, Job, Rloo
from recipe_engine.training.layers import quick_layers
from recipe_engine.training.ppo.loop import Trace
from recipe_engine.training.ppo.rollout import check_room, open_writer
from recipe_engine.training.trainer import StopSafely

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recipe_engine.contract import StageRequest
    from recipe_engine.training.ppo.judging import Score
    from recipe_engine.training.rows import Row

_RATIOS = {"token": "token", "answer": "sequence"}


def train_groups(request: StageRequest, prompts: Sequence[Row], tokenizer: Any, score: Score) -> Trace:
    """Train the request's model in place; go on from the last checkpoint in its work area where there is one.

    Args:
        request: of ``train.rloo`` or ``train.grpo``.
        prompts: what is answered.
        tokenizer: of the model.
        score: the reward, opened.

    Raises:
        Interrupted: the user asked for it; a checkpoint is there.
        StageFailed: a reward or the loss is no number, there are too few prompts for a step, a prompt leaves no room
            for an answer, or the head of the model has an adapter.
    """
    options: TrainRloo | TrainGrpo = request.options
    model = request.inputs.model
    check_room(model, prompts, options.max_new_tokens)
    _check_head(model)
    steps = _steps(options, len(prompts), request.seed)
    resumed = checkpoint.latest(request.work)
    if resumed is not None:
        done = int(resumed.name.removeprefix("step-")) // options.updates
        request.reporter.message(f"going on from the checkpoint of step {done}")
    stop = _StopAfterStep(request.reporter, options.updates)
    writing = open_writer(model, tokenizer, prompts, options, request.work)
    with _lent(model), quick_layers(model), writing as writer:
        job = Job(
            model=model,
            tokenizer=tokenizer,
            prompts=prompts,
            score=score,
            options=options,
            steps=len(steps),
            reporter=request.reporter,
            writer=writer,
        )
        trainer = _trainer(request, job, _plan(options, steps), [_Progress(request.reporter, options.updates), stop])
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if stop.stopped:
        raise Interrupted(f"stopped after step {len(trainer.course.steps)} of {len(steps)}; a checkpoint is kept.")
    return Trace(trainer.course.steps, trainer.course.samples, trainer.tokens)


def _trainer(request: StageRequest, job: Job, plan: Plan, callbacks: list[TrainerCallback]) -> GroupTrainer:
    kind = Rloo if isinstance(job.options, TrainRloo) else Grpo
    return kind(job, plan=plan, work=request.work, args=_arguments(request, plan.steps), callbacks=callbacks)


def _steps(options: TrainRloo | TrainGrpo, prompts: int, seed: int) -> list[tuple[int, ...]]:
    """The prompts of each step. What is left of the last epoch and fills no step is not answered."""
    size = options.batch_size // options.num_generations
    plan = plan_batches(
        prompts,
        epochs=options.epochs,
        batch_size=size,
        micro_batch_size=None,
        max_steps=options.max_steps,
        seed=seed,
    )
    steps = [step for step in plan.micro_batches if len(step) == size]
    if not steps:
        raise StageFailed(
            f"train: a step answers {size} prompts, and {options.epochs} epochs of {prompts} are fewer.",
            "Lower batch_size, or raise epochs or num_generations.",
        )
    return steps


def _plan(options: TrainRloo | TrainGrpo, steps: Sequence[Sequence[int]]) -> Plan:
    """What TRL wants: the prompts of a step, each as often as it is answered, once for each micro-batch of the step."""
    accumulate = options.minibatch // options.micro_batch
    times = options.updates * accumulate
    asked = [tuple(position for position in step for _ in range(options.num_generations)) for step in steps]
    return Plan(tuple(step for step in asked for _ in range(times)), accumulate, len(steps) * options.updates)


def _arguments(request: StageRequest, updates: int) -> RLOOConfig | GRPOConfig:
    """The recipe's options in TRL's words."""
    options: TrainRloo | TrainGrpo = request.options
    common: dict[str, Any] = {
        **_sizes(options),
        "output_dir": str(request.work),
        "max_steps": updates,
        "temperature": options.temperature,
        "beta": 0.0,  # the trainer gets it with the engine's reference; TRL would load one of its own
        "epsilon": options.clip_range,
        "epsilon_high": options.clip_range_high,
        "mask_truncated_completions": options.cut_answers == "leave_out",
        "disable_dropout": True,
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "adam_beta1": options.adam_beta1,
        "adam_beta2": options.adam_beta2,
        "max_grad_norm": options.max_grad_norm,
        "save_strategy": "steps",
        "logging_nan_inf_filter": False,
        "bf16": False,  # the dtype is that of the loaded model
        "gradient_checkpointing": None,  # this is how not to ask for it
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": request.device == "cpu",
        "seed": request.seed,
    }
    if isinstance(options, TrainRloo):
        return RLOOConfig(**common, normalize_advantages=options.whiten_advantages)
    chosen = {"loss_type": options.loss_type, "scale_rewards": options.scale_rewards}
    return GRPOConfig(**common, **chosen, importance_sampling_level=_RATIOS[options.ratio_of])


def _sizes(options: TrainRloo | TrainGrpo) -> dict[str, int]:
    """How many of what: a step of the recipe has several steps of TRL's."""
    return {
        "per_device_train_batch_size": options.micro_batch,
        "gradient_accumulation_steps": options.minibatch // options.micro_batch,
        "steps_per_generation": options.batch_size // options.micro_batch,
        "num_generations": options.num_generations,
        "num_iterations": options.ppo_epochs,
        "max_completion_length": options.max_new_tokens,
        "logging_steps": options.updates,
        "save_steps": options.checkpoint_steps * options.updates,
    }


def _check_head(model: Any) -> None:
    """TRL multiplies by the head's own weight."""
    if type(model.get_output_embeddings()).__module__.partition(".")[0] == "peft":
        raise StageFailed(
            "train: the head of the model has an adapter, and TRL's trainers multiply past it.",
            "Leave lm_head, modules_to_save and new_tokens alone here, or train with ppo.",
        )


@contextmanager
def _lent(model: Any) -> Iterator[None]:
    """What TRL changes on a model, for the time of the block only: a trained model is as one that is restored."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept = [(vars(part), dict(vars(part))) for part in (model, base, model.config, model.generation_config)]
    dropouts = [(module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    # TRL would turn the adapters of a quantized base into bfloat16, and the Trainer looks for PEFT's wrapper around it.
    base.is_loaded_in_4bit = base.is_loaded_in_8bit = False
    base._hf_peft_config_loaded = True  # noqa: SLF001 -- the only way to tell the Trainer
    try:
        yield
    finally:
        for now, before in kept:
            now.clear()
            now.update(before)
        for module, probability in dropouts:
            module.p = probability
        model.eval()


class _Progress(TrainerCallback):
    """Tells how many steps are done, and spares the checkpoint of the last: the artifact makes it needless."""

    def __init__(self, reporter: Any, updates: int) -> None:
        self._reporter = reporter
        self._updates = updates

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """A resumed training starts in the middle of the plan."""
        self._tell(state)

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer after each optimizer step."""
        if state.global_step % self._updates == 0:
            self._tell(state)
        if state.global_step >= state.max_steps:
            control.should_save = False

    def _tell(self, state: Any) -> None:
        self._reporter.progress(state.global_step // self._updates, state.max_steps // self._updates, "steps")


class _StopAfterStep(StopSafely):
    """Stops where the answers of a step are learned: no checkpoint holds answers."""

    def __init__(self, reporter: Any, updates: int) -> None:
        super().__init__(reporter)
        self._updates = updates

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Called by the Trainer after each optimizer step."""
        return control if state.global_step % self._updates else super().on_step_end(_args, state, control)
