"""Options of the built-in methods: the one home of each option's meaning, unit and bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recipe_engine.methods.sources.references import check_repository
from recipe_engine.options import option

if TYPE_CHECKING:
    from collections.abc import Sequence


_USUAL = "bfloat16"
_AUTO = (
    "auto is bfloat16 on CPUs and GPUs that compute in it (AVX-512 BF16, AMX; compute capability 8.0), float16 on an "
    "older GPU where the training scales its loss, else float32"
)


@dataclass(frozen=True)
class LoadFull:
    """Load the weights as they are, without quantization."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = option(
        f"Precision of the weights in memory and in the products; {_AUTO}.", default="auto", plain=_USUAL
    )

    @property
    def precision(self) -> str:
        """The dtype; that of most devices where nothing has decided it."""
        return _USUAL if self.dtype == "auto" else self.dtype


@dataclass(frozen=True)
class LoadNf4:
    """Quantize the linear layers to 4-bit NormalFloat (Dettmers et al., 2023: QLoRA)."""

    double_quant: bool = option("Quantize the quantization constants too: 0.4 bits a weight less.", default=True)
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = option(
        f"Precision of the products and of what is not quantized; {_AUTO}.", default="auto", plain=_USUAL
    )

    @property
    def precision(self) -> str:
        """The dtype; that of most devices where nothing has decided it."""
        return _USUAL if self.compute_dtype == "auto" else self.compute_dtype


@dataclass(frozen=True)
class LoadEncoder:
    """Load an encoder, such as BERT, with a head that gives one score."""

    dtype: Literal["float32", "bfloat16"] = option(
        "Precision of the weights in memory and in the products; the head is in float32 in any case.",
        default="float32",
    )

    @property
    def precision(self) -> str:
        """The dtype."""
        return self.dtype


@dataclass(frozen=True)
class LoadInt8:
    """Quantize the linear layers to 8-bit integers (Dettmers et al., 2022: LLM.int8())."""

    threshold: float = option(
        "Columns of a layer's input that hold a value from this size on are multiplied in full precision; "
        "0 quantizes all columns.",
        default=6.0,
        minimum=0,
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = option(
        f"Precision of what is not quantized; {_AUTO}.", default="auto", plain=_USUAL
    )

    @property
    def precision(self) -> str:
        """The dtype; that of most devices where nothing has decided it."""
        return _USUAL if self.compute_dtype == "auto" else self.compute_dtype


@dataclass(frozen=True)
class AdaptLora:
    """Low-rank adapters beside frozen weights (Hu et al., 2021: LoRA)."""

    rank: int = option("Rank of the update: the width of the two factors.", default=16, minimum=1)
    alpha: float = option("The update is scaled by alpha / rank.", default=32.0, above=0)
    dropout: float = option("Dropout before the first factor.", default=0.0, minimum=0, below=1)
    target_modules: Literal["all-linear"] | tuple[str, ...] = option(
        "Modules that get an adapter, by the end of their name; all-linear is every linear layer but the head.",
        default="all-linear",
        min_items=1,
    )
    dora: bool = option("Learn direction and length of each column apart (Liu et al., 2024: DoRA).", default=False)
    rslora: bool = option(
        "Scale by alpha / sqrt(rank), so that a high rank learns as fast (Kalajdzievski, 2023: rsLoRA).", default=False
    )
    bias: Literal["none", "lora_only", "all"] = option(
        "Biases that are trained too: none, those of the adapted layers, or all.", default="none"
    )
    modules_to_save: tuple[str, ...] | None = option(
        "Modules that are trained whole and kept with the adapter, by the end of their name.",
        default=None,
        min_items=1,
    )
    new_tokens: tuple[str, ...] | None = option(
        "Tokens that are added to the tokenizer; their rows in the embedding are trained and kept with the adapter.",
        default=None,
        min_items=1,
    )
    init: Literal["default", "gaussian", "pissa", "olora"] = option(
        "How the adapter starts: default and gaussian change nothing at first; pissa (Meng et al., 2024) and olora "
        "(Büyükakyüz, 2024) take the main directions of each weight out of it. The export fits the untouched model.",
        default="default",
    )

    @property
    def changes_base(self) -> bool:
        """Whether the adapter starts as a part of the weights, which is taken out of them."""
        return self.init in ("pissa", "olora")

    @property
    def is_more_than_adapters(self) -> bool:
        """Whether it reads or changes weights of the model itself."""
        whole = self.modules_to_save is not None or self.new_tokens is not None
        return self.dora or self.bias != "none" or whole or self.changes_base

    def contradictions(self) -> Sequence[tuple[str, str]]:
        """Options that cannot both be meant."""
        found = []
        if self.dora and self.changes_base:
            found.append(("dora", f"with init = {self.init} the lengths would be those of weights that are not whole"))
        targets = () if isinstance(self.target_modules, str) else self.target_modules
        new = self.new_tokens or ()
        if len(set(new)) < len(new) or "" in new:
            found.append(("new_tokens", "each token is given once, and none is empty"))
        twice = sorted(set(targets) & set(self.modules_to_save or ()))
        if twice:
            found.append(("modules_to_save", f"{twice[0]} gets an adapter too: name it in one of the two"))
        return found


@dataclass(frozen=True)
class AdaptFull:
    """No adapter: the weights of the model themselves are trained, and the result is a whole model."""

    train_only: tuple[str, ...] | None = option(
        "Modules that are trained, by the end of their name; the whole model where left out.",
        default=None,
        min_items=1,
    )


@dataclass(frozen=True)
class EvaluatePerplexity:
    """How surprised the model is by the right answers, each token counted once."""

    data: str = option("Data set to measure on.", default="eval", in_key=False)
    batch_size: int = option("Rows, or windows of long ones, of one forward pass.", default=16, minimum=1, unit="rows")
    window: int | None = option(
        "Longer rows are read whole, whatever max_length says, in windows of so many tokens that overlap; the longest "
        "input of the model, and max_length holds, where left out.",
        default=None,
        minimum=2,
        unit="tokens",
    )
    stride: int | None = option(
        "How far a window begins behind the one before it: the smaller, the more context a token has at least, and the "
        "longer it takes; half a window where left out.",
        default=None,
        minimum=1,
        unit="tokens",
        needs="window",
    )
    prompts: bool = option("Measure the tokens of prompts too, not those alone that are learned.", default=False)

    def contradictions(self) -> Sequence[tuple[str, str]]:
        """Windows that would leave tokens out."""
        if self.window and self.stride and self.stride >= self.window:
            return [
                ("stride", f"windows of {self.window} tokens must overlap, as the first token of each has no context")
            ]
        return []


@dataclass(frozen=True)
class EvaluatePreference:
    """How often a reward model gives the better of two answers the higher score, and how sure it is."""

    data: str = option("Data set of pairs to measure on.", default="eval", in_key=False)
    batch_size: int = option("Pairs of one forward pass.", default=16, minimum=1, unit="pairs")


@dataclass(frozen=True)
class EvaluateSamples:
    """A few greedy answers, to be read by people."""

    data: str = option("Data set to take the first rows of.", default="eval", in_key=False)
    count: int = option("How many.", default=3, minimum=1, unit="rows")
    max_new_tokens: int = option("Longest answer.", default=64, minimum=1, unit="tokens")


@dataclass(frozen=True)
class Published:
    """What is published, wherever it goes: adapter in PEFT's format or whole model, tokenizer, card, recipe, lock."""

    merged: bool = option(
        "Publish the whole model with the adapter merged into its weights, which loads without PEFT.", default=False
    )
    license: str | None = option(
        "Licence of the result, as the Hub calls it, such as apache-2.0; for the model card.",
        default=None,
        pattern=r"^[a-z0-9][a-z0-9.-]*$(?!\n)",
        in_key=False,
    )
    language: tuple[str, ...] | None = option(
        "Languages that the result speaks, as ISO 639 codes such as en; for the model card.",
        default=None,
        min_items=1,
        in_key=False,
    )


@dataclass(frozen=True)
class PushFolder(Published):
    """Export into a folder: adapter in PEFT's format or whole model, tokenizer, model card, recipe, lock."""

    path: str | None = option(
        "The folder, relative to where the command is given; exports/<name of the recipe> where left out.",
        default=None,
        in_key=False,
    )


@dataclass(frozen=True)
class PushHub(Published):
    """Publish on the Hugging Face Hub in one commit, and read it back."""

    repo: str = option("The repository, owner/name; it is made where there is none.", in_key=False)
    private: bool = option("Whether a repository that is made is seen by its owner alone.", default=True, in_key=False)
    gated: Literal["auto", "manual"] | None = option(
        "Let people ask before they get the files: auto lets everybody in who asks, manual whom the owner chooses; "
        "the repository stays as it is where left out.",
        default=None,
        in_key=False,
    )
    branch: str = option(
        "Branch that gets the commit; it is made where there is none.",
        default="main",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$(?!\n)",
        in_key=False,
    )
    pull_request: bool = option(
        "Propose the commit as a pull request to the branch, instead of making it.", default=False, in_key=False
    )

    def contradictions(self) -> Sequence[tuple[str, str]]:
        """Names that no repository can have, and options that cannot both be meant."""
        found = []
        if wrong := check_repository(self.repo):
            found.append(("repo", wrong))
        if self.pull_request and self.gated:
            found.append(("gated", "who proposes a change does not decide who gets the files"))
        if self.pull_request and not self.private:
            found.append(("private", "it cannot matter here: a pull request makes no repository"))
        if self.pull_request and self.branch != "main":
            found.append(("branch", "a pull request goes to main"))
        return found


@dataclass(frozen=True)
class PromptFields:
    """Names of the fields of a row."""

    prompt: str = option("Field that holds the prompt.", default="prompt")
    completion: str = option("Field that holds the answer.", default="completion")


_FIELDS = PromptFields()


@dataclass(frozen=True)
class FormatInstruction:
    """One prompt and one answer a row."""

    fields: PromptFields = option("Names of the row's fields.", default=_FIELDS)
    system: str | None = option("System message before each prompt; the template's own where left out.", default=None)
    template: str | None = option(
        "Text around the prompt, with {prompt} in it, instead of the tokenizer's chat template.",
        default=None,
        pattern=r"\{prompt\}",
    )


@dataclass(frozen=True)
class FormatChat:
    """A conversation a row: a list of messages, each with role and content; the assistant's are learned."""

    field: str = option("Field that holds the list of messages.", default="messages")
    system: str | None = option("System message where the conversation has none.", default=None)
    train_on: Literal["all", "last"] = option(
        "Answers that are learned: all of the assistant's, or the last; some templates rewrite the earlier ones.",
        default="all",
    )


@dataclass(frozen=True)
class FormatText:
    """A text a row, all of it learned."""

    field: str = option("Field that holds the text.", default="text")


@dataclass(frozen=True)
class FormatPrompt:
    """A question a row, without an answer."""

    field: str = option("Field that holds the prompt: text, or a list of messages.", default="prompt")
    system: str | None = option("System message where the prompt has none.", default=None)
    template: str | None = option(
        "Text around the prompt, with {prompt} in it, instead of the tokenizer's chat template; {prompt} alone is a "
        "text to go on with.",
        default=None,
        pattern=r"\{prompt\}",
    )


@dataclass(frozen=True)
class PairFields:
    """Names of the fields of a row of preferences."""

    prompt: str = option("Field that holds the prompt: text, or a list of messages.", default="prompt")
    chosen: str = option("Field that holds the better answer.", default="chosen")
    rejected: str = option("Field that holds the worse answer.", default="rejected")
    margin: str | None = option(
        "Field that holds a number: by how much the better answer is better, in the scores of train.reward.",
        default=None,
    )


_PAIR_FIELDS = PairFields()


@dataclass(frozen=True)
class FormatPreference:
    """A prompt, a better and a worse answer a row."""

    fields: PairFields = option("Names of the row's fields.", default=_PAIR_FIELDS)
    system: str | None = option("System message where the prompt has none.", default=None)
