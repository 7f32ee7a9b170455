"""Small reward models on encoders that tests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tests import tiny

from recipe_engine.methods.adapt_full import AdaptFull
from recipe_engine.methods.adapt_lora import AdaptLora
from recipe_engine.methods.load_encoder import LoadEncoder
from recipe_engine.methods.options import AdaptFull as FullOptions
from recipe_engine.methods.options import AdaptLora as LoraOptions
from recipe_engine.methods.options import LoadEncoder as LoadOptions
from recipe_engine.methods.prepare import EncoderTokenizerStage
from recipe_engine.methods.train_reward import TrainReward
from recipe_engine.training.options import TrainReward as Options

if TYPE_CHECKING:
    from tests.encoders import Encoder

    from recipe_engine.contract import StageRequest, StageResult

How = Literal["lora", "full"]
JOB: dict[str, Any] = {"epochs": 12, "batch_size": 5, "learning_rate": 1e-2}


class Job:
    """One reward model, from a folder with an encoder to its result.

    Args:
        root: where everything goes.
        encoder: the family.
        how: what is trained.
        dtype: of the weights.
        **adapt: options of the adapt method.
    """

    def __init__(
        self,
        root: Path,
        encoder: Encoder,
        how: How = "lora",
        *,
        dtype: Literal["float32", "bfloat16"] = "float32",
        **adapt: Any,
    ) -> None:
        self.root = root
        self.base = root / "encoder"
        if not self.base.exists():
            encoder.write(self.base)
        request = tiny.stage_request(root, None, node="tokenizer", source=tiny.resolve(self.base))
        EncoderTokenizerStage().run(request)
        self.tokenizer = request.output
        self._adapt = AdaptLora() if how == "lora" else AdaptFull()
        self._chosen: Any = LoraOptions(**({"rank": 4} | adapt)) if how == "lora" else FullOptions(**adapt)
        self._load = tiny.stage_request(root, LoadOptions(dtype=dtype), node="load", source=tiny.resolve(self.base))
        loaded = tiny.run_stage(LoadEncoder(), self._load).live
        self._adapted = tiny.stage_request(root, self._chosen, node="adapt", model=loaded)
        self.model = tiny.run_stage(self._adapt, self._adapted).live

    def prepared(self, rows: Sequence[Mapping[str, Any]], **table: Any) -> Path:
        """Pairs as its encoder reads them."""
        folder = self.root / f"rows-{len(list(self.root.glob('rows-*')))}"
        return tiny.prepare_data(folder, rows, self.tokenizer, data_format="preference", plain=True, **table)

    def restored(self) -> Any:
        """The model that is adapted, from artifacts alone."""
        loaded = tiny.restore_stage(LoadEncoder(), self._load, self._load.output)
        request = tiny.stage_request(self.root, self._chosen, node="adapt", model=loaded)
        return tiny.restore_stage(self._adapt, request, self._adapted.output)

    def request(self, data: Mapping[str, Path], model: Any = None, **options: Any) -> StageRequest:
        """Of the training."""
        reporter = options.pop("reporter", None)
        return tiny.stage_request(
            self.root,
            Options(**(JOB | options)),
            model=self.model if model is None else model,
            tokenizer=self.tokenizer,
            data=data,
            reporter=reporter,
        )

    def train(self, data: Mapping[str, Path], **options: Any) -> tuple[StageResult, Path]:
        """The result and the output folder."""
        request = self.request(data, **options)
        return tiny.run_stage(TrainReward(), request), request.output
