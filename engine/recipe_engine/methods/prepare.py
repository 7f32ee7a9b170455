"""The two nodes that need a tokenizer only: the tokenizer itself, and a prepared data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import FormatCode, PairCode, ResolvedSource, StageRequest, StageResult
from recipe_engine.errors import StageFailed, UnresolvedInput
from recipe_engine.training import prepare, rows
from recipe_engine.training.reading import read_source
from recipe_engine.training.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recipe_engine.descriptors import DataKind
    from recipe_engine.model import DataSet

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "spm.model",
)


class TokenizerStage:
    """Takes the tokenizer out of the base model, in the fast format, so that later nodes need nothing else.

    Its options are the tokens that are added.
    """

    def run(self, request: StageRequest) -> StageResult:
        """Write tokenizer.json, its configuration and the chat template.

        Raises:
            UnresolvedInput: where the model has no usable tokenizer.
            StageFailed: where it has a new token already.
        """
        source = request.inputs.source
        assert source is not None  # the graph gives every tokenizer node a source
        tokenizer = self.load(source)
        _extend(tokenizer, request.options or ())
        tokenizer.save_pretrained(request.output)
        return StageResult()

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """Nothing is handed on: whoever needs the tokenizer opens the artifact."""
        del request, artifact

    @staticmethod
    def load(source: ResolvedSource) -> Any:
        """The tokenizer of the source."""
        return load_tokenizer(source)


class EncoderTokenizerStage(TokenizerStage):
    """The same for an encoder, which ends no text and pads with a token of its own."""

    @staticmethod
    def load(source: ResolvedSource) -> Any:
        """The tokenizer of the source.

        Raises:
            UnresolvedInput: where it has no token that pads.
        """
        tokenizer = _read_tokenizer(source)
        if tokenizer.pad_token is None:
            hint = "Set pad_token in its tokenizer_config.json."
            raise UnresolvedInput(f"{source.reference}: the tokenizer names no padding token.", hint)
        return tokenizer


class PrepareStage:
    """Tokenizes one data set and holds it at the data gate. Its options are a ``DataSet``."""

    plain = False
    """Whether it prepares for an encoder, which has no chat template."""

    def __init__(self, code: FormatCode | PairCode, kind: DataKind = "text") -> None:
        self._code = code
        self._kind = kind

    def run(self, request: StageRequest) -> StageResult:
        """Write the rows.

        Raises:
            DataRejected: where the gate stays shut.
        """
        source, folder = request.inputs.source, request.inputs.tokenizer
        assert source is not None and folder is not None  # noqa: PT018 -- as above
        data_set: DataSet = request.options
        prepared = prepare.prepare(
            read_source(source, data_set.table),
            data_set.table,
            prepare.Format(self._kind, self._code, data_set.format_options, plain=self.plain),
            open_tokenizer(folder),
            lambda done, total: request.reporter.progress(done, total, "rows"),
        )
        rows.write_rows(request.output, prepared.rows)
        if prepared.dropped:
            shown = ", ".join(map(str, prepared.dropped[:10]))
            request.reporter.message(f"{len(prepared.dropped)} rows over max_length were dropped: {shown}")
        return StageResult(metrics=_counts(prepared))

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """Nothing is handed on: whoever needs the rows reads the artifact."""
        del request, artifact


class PreparePlainStage(PrepareStage):
    """The same for an encoder: of preferences it makes pairs of texts, of prompts it keeps what an encoder is asked."""

    plain = True


def load_tokenizer(source: ResolvedSource) -> Any:
    """The tokenizer of a language model, from its folder or its GGUF file.

    A tokenizer without a padding token pads with its end-of-sequence token; labels are masked by position, never by
    token id, so the end is learned all the same.

    Raises:
        UnresolvedInput: where there is none, it cannot be read or it ends no text.
    """
    tokenizer = _read_tokenizer(source)
    if tokenizer.eos_token is None:
        raise UnresolvedInput(
            f"{source.reference}: the tokenizer names no end-of-sequence token.",
            "Set eos_token in its tokenizer_config.json.",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _read_tokenizer(source: ResolvedSource) -> Any:
    from transformers import AutoTokenizer

    names = [file.path for file in source.files]
    gguf = [name for name in names if name.endswith(".gguf")]
    if not gguf and not any(name in _TOKENIZER_FILES for name in names):
        raise UnresolvedInput(
            f"{source.reference} holds no tokenizer.",
            f"Expected one of {', '.join(_TOKENIZER_FILES)} beside the weights.",
        )
    folder = source.local_path(names[0]).parent
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **({"gguf_file": gguf[0]} if gguf else {})
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnresolvedInput(f"{source.reference}: the tokenizer cannot be read: {error}") from error
    return tokenizer


def _extend(tokenizer: Any, tokens: Sequence[str]) -> None:
    known = tokenizer.get_vocab()
    for token in tokens:
        if token in known:
            raise StageFailed(f'new_tokens: the tokenizer has the token "{token}" already.', "Leave it out.")
    # Not as special tokens: they are part of what is read and written.
    tokenizer.add_tokens(list(tokens))


def _counts(prepared: prepare.Prepared) -> dict[str, float]:
    lengths = [len(row.input_ids) for row in prepared.rows]
    return {
        "rows": len(lengths),
        "dropped_rows": len(prepared.dropped),
        "tokens": sum(lengths),
        "supervised_tokens": sum(sum(row.supervised) for row in prepared.rows),
        "longest_row": max(lengths),
    }
