"""A tiny language model, its tokenizer and its data, made on the spot and the same to the byte each time.

A model of two layers is real: transformers loads it, PEFT adapts it, it generates. Its folder is written with numpy
and ``tokenizers`` alone, in a fraction of a second, so that a test of the command line need not import torch.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recipe_engine.contract import Inputs, ResolvedSource, SourceRequest, StageRequest, StageResult
from recipe_engine.methods.sources.file import FileSource

START, END, PAD, BOS = "<|im_start|>", "<|im_end|>", "<|pad|>", "<s>"
VOCABULARY = 300
HIDDEN, INNER, LAYERS, HEADS, KEY_HEADS, POSITIONS = 32, 64, 2, 4, 2, 512

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Pairs that are merged, the most urgent first: "t" and "he" on both sides of a border would become one token.
_MERGES = (
    "t h|e r|i n|a n|o n|th e|Ġ the|r e|Ġ a|e n|u s|in g|e s|a t|s t|o r|Ġ w|w h|Ġ s|a s|a l|e d|i s|Ġ c|o u|"
    "an d|Ġ t|l e|Ġ b|Ġ f|Ġ i|a r|Ġ m|i t|Ġ p|us er|n o|t o|Ċ Ċ|h i"
)

Architecture = Literal["llama", "gpt2"]
Padding = Literal["eos", "own", "none"]


def write_tokenizer(
    folder: Path,
    *,
    pad: Padding = "eos",
    bos: bool = False,
    chat_template: str | None = CHAT_TEMPLATE,
    special: Sequence[str] = (START, END, PAD, BOS),
    eos: str = END,
    bos_token: str = "",
) -> Path:
    """Write a byte-level tokenizer, by default with ChatML's special tokens and ``<|im_end|>`` as end of sequence.

    Args:
        folder: where tokenizer.json and tokenizer_config.json go; it is made.
        pad: what pads: the end-of-sequence token, a token of its own, or nothing that the tokenizer names.
        bos: whether plain text begins with ``<s>``.
        chat_template: the chat template; ``None`` for none.
        special: its special tokens.
        eos: the one that ends a sequence.
        bos_token: the one that begins it, where it has one; with ``bos`` alone it is ``<s>``.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in _MERGES.split("|"))]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    if bos:
        bos_token = bos_token or BOS
        begins = [(bos_token, tokenizer.token_to_id(bos_token))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos_token} $A", special_tokens=begins)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos,
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
    }
    config |= {"pad_token": {"eos": eos, "own": PAD}[pad]} if pad != "none" else {}
    config |= {"bos_token": bos_token} if bos_token else {}
    config |= {"chat_template": chat_template} if chat_template is not None else {}
    _write_json(folder / "tokenizer_config.json", config)
    return folder


def write_model(
    folder: Path,
    *,
    architecture: Architecture = "llama",
    seed: int = 0,
    tied: bool = False,
    pickled: bool = False,
    pad: Padding = "eos",
    bos: bool = False,
    chat_template: str | None = CHAT_TEMPLATE,
    tokenizer: bool = True,
) -> Path:
    """Write a whole model folder: configuration, weights in float32, tokenizer.

    Args:
        folder: it is made.
        architecture: ``llama``, or ``gpt2``, whose linear layers are ``Conv1D`` and have biases.
        seed: of the weights.
        tied: whether the head is the embedding (GPT-2's always is).
        pickled: weights as ``pytorch_model.bin`` only.
        pad: see :func:`write_tokenizer`.
        bos: see :func:`write_tokenizer`.
        chat_template: see :func:`write_tokenizer`.
        tokenizer: whether there is one at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shapes = _gpt2_shapes() if architecture == "gpt2" else _llama_shapes(tied=tied)
    weights = {name: _weight(name, shape, seed) for name, shape in sorted(shapes.items())}
    _write_json(folder / "config.json", _gpt2_config() if architecture == "gpt2" else _llama_config(tied=tied))
    if pickled:
        import torch

        torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, folder / "pytorch_model.bin")
    else:
        from safetensors.numpy import save_file

        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if tokenizer:
        write_tokenizer(folder, pad=pad, bos=bos, chat_template=chat_template)
    return folder


def instruction_rows(count: int, *, start: int = 0) -> list[dict[str, str]]:
    """Rows of the format ``instruction``, of different lengths, no two alike."""
    return [
        {
            "prompt": f"What comes after {'the number ' * (n % 3)}{n}?",
            "completion": f"{n + 1}" + ", of course" * (n % 2),
        }
        for n in range(start, start + count)
    ]


def chat_rows(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Rows of the format ``chat``, each with two answers."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"What comes after {n}?"},
                {"role": "assistant", "content": str(n + 1)},
                {"role": "user", "content": "And then?"},
                {"role": "assistant", "content": f"Then comes {n + 2}."},
            ]
        }
        for n in range(start, start + count)
    ]


def preference_rows(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Rows of the format ``preference``: the polite answer is the better one."""
    return [
        {
            "prompt": f"What comes after {'the number ' * (n % 3)}{n}?",
            "chosen": f"{n + 1}" + ", of course. Thank you for asking." * (n % 2) + " Thank you." * (1 - n % 2),
            "rejected": f"{n + 1}" + ". Is that all you want to know?" * (n % 3),
        }
        for n in range(start, start + count)
    ]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write one row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass
class Recorder:
    """A reporter that keeps what it is told.

    Attributes:
        stop_after: the person asks for the end of the run once so many units are done; never where ``None``.
        progressed: (done, total, unit) of every call.
        logged: (step, values) of every call.
        messages: every line.
    """

    stop_after: int | None = None
    progressed: list[tuple[int, int, str]] = field(default_factory=list)
    logged: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def progress(self, done: int, total: int, unit: str) -> None:
        """See ``contract.Reporter.progress``."""
        self.progressed.append((done, total, unit))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See ``contract.Reporter.metrics``."""
        self.logged.append((step, dict(values)))

    def message(self, text: str) -> None:
        """See ``contract.Reporter.message``."""
        self.messages.append(text)

    def stop_requested(self) -> bool:
        """See ``contract.Reporter.stop_requested``."""
        return self.stop_after is not None and bool(self.progressed) and self.progressed[-1][0] >= self.stop_after


def resolve(path: Path, kind: Literal["model", "data"] = "model") -> ResolvedSource:
    """A folder or file as the source ``file:`` resolves it: by its name, so that no path of this machine is in it."""
    request = SourceRequest(reference=f"file:{path.name}", folder=path.parent, cache=path.parent, kind=kind)
    return FileSource().fetch(request, Recorder())


def stage_request(
    root: Path,
    options: Any,
    *,
    node: str = "train",
    source: ResolvedSource | None = None,
    model: Any = None,
    tokenizer: Path | None = None,
    data: Mapping[str, Path] | None = None,
    seed: int = 7,
    reporter: Recorder | None = None,
) -> StageRequest:
    """A request for one stage.

    The output is a new folder under ``root`` in each call. The work area is the same for equal ``root`` and ``node``,
    as it is when a run is started again.
    """
    work = root / f"work-{node}"
    work.mkdir(parents=True, exist_ok=True)
    return StageRequest(
        node=node,
        options=options,
        inputs=Inputs(source=source, model=model, tokenizer=tokenizer, data=data or {}, base="file:tiny"),
        output=Path(tempfile.mkdtemp(dir=root, prefix=f"output-{node}-")),
        work=work,
        seed=seed,
        device="cpu",
        reporter=reporter or Recorder(),
    )


def prepare_data(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    tokenizer: Path,
    *,
    data_format: Literal["instruction", "chat", "preference", "text", "prompt"] = "instruction",
    plain: bool = False,
    **table: Any,
) -> Path:
    """Rows through the real ``prepare`` stage; the folder of its artifact.

    Args:
        folder: where the rows and the artifact go; it is made.
        rows: what the JSONL file holds.
        tokenizer: a folder with a tokenizer.
        data_format: of the rows.
        plain: whether it is for an encoder.
        **table: further keys of the ``[data.…]`` table.
    """
    from recipe_engine.lazy import load_symbol
    from recipe_engine.methods.prepare import PreparePlainStage, PrepareStage
    from recipe_engine.model import build_data_set
    from recipe_engine.plugins import load_catalogue

    file = write_jsonl(folder / "rows.jsonl", rows)
    found = load_catalogue(entry_points=False).formats[data_format].descriptor
    keys = {"source": "file:rows.jsonl", "format": data_format, **table}
    data_set = build_data_set("train", keys, found.options)
    request = stage_request(folder, data_set, node="prepare", source=resolve(file, "data"), tokenizer=tokenizer)
    stage = PreparePlainStage if plain else PrepareStage
    stage(load_symbol(found.implementation)(), found.kind).run(request)
    return request.output


def run_stage(code: Any, request: StageRequest) -> StageResult:
    """Run a stage as the worker does: all generators seeded first."""
    from recipe_engine.runners.worker import seed_everything

    seed_everything(request.seed)
    result: StageResult = code.run(request)
    return result


def restore_stage(code: Any, request: StageRequest, artifact: Path) -> Any:
    """What the stage handed on, from its artifact, as the worker gets it in another process."""
    from recipe_engine.runners.worker import seed_everything

    seed_everything(request.seed)
    return code.restore(request, artifact)


def load_model(folder: Path, dtype: str = "float32") -> Any:
    """The model of a folder as ``load.full`` hands it on: frozen, in evaluation mode."""
    from recipe_engine.methods.load_full import load_pretrained

    return load_pretrained(folder, dtype, "cpu")


def adapted_model(root: Path, folder: Path, *, dtype: str = "float32", **options: Any) -> Any:
    """The model of a folder with adapters on it, as ``adapt.lora`` hands it on; the options are the method's.

    The second factor of each adapter is filled, so that the adapter changes what the model says.
    """
    import torch

    from recipe_engine.methods.adapt_lora import AdaptLora
    from recipe_engine.methods.options import AdaptLora as Options

    request = stage_request(root, Options(**({"rank": 4} | options)), node="adapt", model=load_model(folder, dtype))
    model = run_stage(AdaptLora(), request).live
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def model_state(model: Any) -> dict[str, Any]:
    """Everything of a model that another stage could notice, and the states of the generators."""
    import torch

    generation = getattr(model, "generation_config", None)  # a reward model writes nothing
    return {
        "modes": [(name, module.training) for name, module in model.named_modules()],
        "kinds": [(name, type(module)) for name, module in model.named_modules()],
        "gradients": [(name, weight.requires_grad, weight.dtype) for name, weight in model.named_parameters()],
        "hooks": [
            (name, len(module._forward_hooks), len(module._forward_pre_hooks)) for name, module in model.named_modules()
        ],
        "config": model.config.to_dict(),
        "generation": generation.to_dict() if generation is not None else None,
        "generators": (torch.get_rng_state().tolist(), random.getstate()),
        "parameters": {name: weight.detach().clone() for name, weight in model.named_parameters()},
        "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()},
    }


def assert_same_state(after: dict[str, Any], before: dict[str, Any], *, generators: bool = True) -> None:
    """To the bit.

    Args:
        after: what was found.
        before: what it should be.
        generators: whether the generators count: not where one model was made and the other restored.
    """
    import torch

    tensors = ("parameters", "buffers")
    left_out = tensors if generators else (*tensors, "generators")
    for part in before.keys() - set(left_out):
        assert after[part] == before[part], part
    for part in tensors:
        assert after[part].keys() == before[part].keys(), part
        different = [name for name, tensor in before[part].items() if not torch.equal(tensor, after[part][name])]
        assert not different, part


def folder_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder by its name, for comparisons to the byte."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _weight(name: str, shape: tuple[int, ...], seed: int) -> Any:
    """Numbers that depend on the tensor's name and the seed alone; norms are near 1, biases near 0."""
    import numpy as np

    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    noise = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big"))).standard_normal(shape)
    # Wide enough that the model has opinions: its greedy answers differ from prompt to prompt.
    scale = 0.2 if len(shape) > 1 else 0.05
    offset = 1.0 if len(shape) == 1 and not name.endswith("bias") else 0.0
    return (offset + scale * noise).astype(np.float32)


def _llama_config(*, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": VOCABULARY - 3,
        "dtype": "float32",
    }


def _llama_shapes(*, tied: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    if not tied:
        shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    narrow = HIDDEN // HEADS * KEY_HEADS
    for layer in range(LAYERS):
        parts: dict[str, tuple[int, ...]] = {
            "input_layernorm": (HIDDEN,),
            "post_attention_layernorm": (HIDDEN,),
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (narrow, HIDDEN),
            "self_attn.v_proj": (narrow, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_proj": (INNER, HIDDEN),
            "mlp.up_proj": (INNER, HIDDEN),
            "mlp.down_proj": (HIDDEN, INNER),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in parts.items()}
    return shapes


def _gpt2_config() -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": VOCABULARY,
        "n_embd": HIDDEN,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_positions": POSITIONS,
        "bos_token_id": None,
        "eos_token_id": VOCABULARY - 3,
        "dtype": "float32",
    }


def _gpt2_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (VOCABULARY, HIDDEN),
        "transformer.wpe.weight": (POSITIONS, HIDDEN),
        "transformer.ln_f.weight": (HIDDEN,),
        "transformer.ln_f.bias": (HIDDEN,),
    }
    for layer in range(LAYERS):
        parts: dict[str, tuple[int, ...]] = {
            "ln_1": (HIDDEN,),
            "ln_2": (HIDDEN,),
            "attn.c_attn": (HIDDEN, 3 * HIDDEN),  # Conv1D keeps (in, out)
            "attn.c_proj": (HIDDEN, HIDDEN),
            "mlp.c_fc": (HIDDEN, 4 * HIDDEN),
            "mlp.c_proj": (4 * HIDDEN, HIDDEN),
        }
        for name, shape in parts.items():
            shapes[f"transformer.h.{layer}.{name}.weight"] = shape
            shapes[f"transformer.h.{layer}.{name}.bias"] = shape[-1:]
    return shapes
