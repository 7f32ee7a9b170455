"""The worker: runs nodes in a process of its own and hands live models from one to the next."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import (
    GivenReward,
    Inputs,
    ResolvedSource,
    RewardRequest,
    SourceFile,
    StageRequest,
    StageResult,
)
from recipe_engine.errors import StageFailed
from recipe_engine.lazy import check_symbols, load_symbol
from recipe_engine.methods.bars import bars_reported
from recipe_engine.model import MODEL, WEIGHTS, build_data_set
from recipe_engine.options import DEFAULT_TIMEOUT, REWARD, build, rewards_of
from recipe_engine.plugins import Catalogue, load_catalogue
from recipe_engine.reward_tables import with_rewards
from recipe_engine.runners.channel import Channel, Reporter
from recipe_engine.runners.failures import bugs_explained, failures_reported
from recipe_engine.runners.surroundings import check_surroundings
from recipe_engine.runners.trained import name_of, trained_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1
# Inputs that a stage reads as folders, under their own names.
_ARTIFACTS = ("adapter", "answers", "before")


class Worker:
    """Runs nodes of one graph.

    Args:
        begin: the ``begin`` message.
        catalogue: what is installed here.
        channel: to the engine.
    """

    def __init__(self, begin: Mapping[str, Any], catalogue: Catalogue, channel: Channel) -> None:
        self._nodes: dict[str, dict[str, Any]] = {node["id"]: node for node in begin["nodes"]}
        self._sources = {name: _source(source) for name, source in begin["sources"].items()}
        self._device: str = begin["device"]
        self._bases: Mapping[str, str] = begin["bases"]
        self._catalogue = catalogue
        self._channel = channel
        self._live: dict[str, Any] = {}
        self._artifacts: dict[str, Path] = {}
        self._tokenizer: Any = None
        self._ends: dict[str, tuple[int, ...]] = {}

    def run(self, command: Mapping[str, Any]) -> None:
        """Run one node and answer ``done``; whatever goes wrong is raised."""
        node = self._nodes[command["node"]]
        node["options"] = command["options"]  # what was not decided yet when the worker began is decided now
        self._artifacts.update({name: Path(path) for name, path in command["artifacts"].items()})
        self._channel.asks_for_stop = False
        method = self._catalogue.methods.get((node["stage"], node["method"]))
        if method is not None:
            check_symbols(method.descriptor.requires)
            check_symbols(method.descriptor.requires_for(self._options(node)))
        output, work = Path(command["output"]), Path(command["work"])
        output.mkdir()  # by its own user, who may be another one in a container
        work.mkdir(exist_ok=True)
        rewards = self._rewards(node)  # before the request: whatever is loaded draws on the generators
        request = replace(self._request(node, output, work), rewards=rewards)
        _share(rewards, request.inputs.model)
        with bars_reported(request.reporter), bugs_explained(self._author(node)):
            result: StageResult = self._code(node).run(request)
        if result.live is not None:
            self._live[node["id"]] = result.live
        self._forget(node["id"])
        self._channel.send(
            "done",
            node=node["id"],
            metrics=dict(result.metrics),
            facts=dict(result.facts),
            references=[
                {"path": item.path, "source": item.source, "sha256": item.sha256, "size": item.size}
                for item in result.references
            ],
        )

    def _forget(self, done: str) -> None:
        """Let go of models that no later node takes: a recipe's base must not lie in memory beside its result."""
        order = list(self._nodes)
        taken = {self._nodes[later]["inputs"].get("model") for later in order[order.index(done) + 1 :]}
        self._live = {name: model for name, model in self._live.items() if name in taken}

    def generate(self, command: Mapping[str, Any]) -> None:
        """Answer a conversation with the model of a node, piece by piece; a stop ends the answer, not the worker."""
        from recipe_engine.training.choice import Decoding
        from recipe_engine.training.streaming import stream
        from recipe_engine.training.tokenizer import open_tokenizer

        self._artifacts.update({name: Path(path) for name, path in command["artifacts"].items()})
        if self._tokenizer is None:
            self._tokenizer = open_tokenizer(self._artifacts["tokenizer"])
        prompt = self._prompt(command["format_node"], command["messages"], self._tokenizer)
        model = self._materialize(command["node"])
        seed_everything(command["seed"])
        self._channel.asks_for_stop = True
        stopped = self._channel.stopping.is_set
        decoding = Decoding(
            max_new_tokens=command["max_new_tokens"],
            temperature=command["temperature"],
            stops=self._stops(command["format_node"]),
        )
        for text in stream(model, self._tokenizer, prompt, decoding, stopped):
            self._channel.send("text", text=text)
        self._channel.send("done", node=command["node"], metrics={}, facts={}, references=[], stopped=stopped())

    def _stops(self, prepare_node: str) -> tuple[int, ...]:
        """The tokens that end an answer in the data of that node; the rows are read once."""
        from recipe_engine.training.rows import end_tokens, read_rows

        if prepare_node not in self._ends:
            self._ends[prepare_node] = end_tokens(read_rows(self._artifacts[prepare_node]))
        return self._ends[prepare_node]

    def _prompt(self, prepare_node: str, messages: Sequence[Mapping[str, str]], tokenizer: Any) -> str:
        node = self._nodes[prepare_node]
        code = load_symbol(self._catalogue.formats[node["method"]].descriptor.implementation)()
        try:
            text: str = code.prompt(messages, self._options(node).format_options, tokenizer)
        except ValueError as error:
            raise StageFailed(f"The conversation does not fit the training's format: {error}.") from error
        return text

    def _request(self, node: Mapping[str, Any], output: Path, work: Path) -> StageRequest:
        inputs = node["inputs"]
        tokenizer = inputs.get("tokenizer")
        prepared = {role.removeprefix("data."): source for role, source in inputs.items() if role.startswith("data.")}
        model = self._materialize(inputs["model"], consume=node["consumes"]) if "model" in inputs else None
        seed_everything(node["seed"])
        return StageRequest(
            node=node["id"],
            options=self._options(node),
            inputs=Inputs(
                source=self._source_of(node),
                model=model,
                tokenizer=self._artifacts[tokenizer] if tokenizer else None,
                data={role: self._artifacts[source] for role, source in prepared.items()},
                artifacts={role: self._artifacts[inputs[role]] for role in _ARTIFACTS if role in inputs},
                base=self._base_of(node),
            ),
            output=output,
            work=work,
            seed=node["seed"],
            device=self._device,
            reporter=Reporter(self._channel, node["id"]),
        )

    def _source_of(self, node: Mapping[str, Any]) -> ResolvedSource | None:
        """The files that a node reads: of a source, or of a model that a recipe trained."""
        trained = node["inputs"].get(WEIGHTS)
        return trained_model(self._artifacts[trained]) if trained else self._sources.get(node["source"])

    def _base_of(self, node: Mapping[str, Any]) -> str:
        """What the model is called that a node's adapter works on."""
        while "model" in node["inputs"]:
            node = self._nodes[node["inputs"]["model"]]
        trained = node["inputs"].get(WEIGHTS)
        return name_of(self._artifacts[trained]) if trained else self._bases.get(node["source"], self._bases[MODEL])

    def _rewards(self, node: Mapping[str, Any]) -> tuple[GivenReward, ...]:
        """What judges the answers of a training."""
        given = []
        for reward in rewards_of(self._options(node)):
            registered = self._catalogue.rewards[reward.source]
            check_symbols(registered.descriptor.requires)
            role = f"{REWARD}.{reward.name}"
            model = self._materialize(node["inputs"][role]) if role in node["inputs"] else None
            tokenizer = node["inputs"].get("tokenizer")
            request = RewardRequest(
                options=reward.options,
                source=self._sources.get(node["sources"].get(role)),
                model=model,
                tokenizer=self._artifacts[tokenizer] if tokenizer else None,
                device=self._device,
            )
            given.append(
                GivenReward(
                    name=reward.name,
                    weight=reward.table.weight,
                    timeout=(reward.table.timeout or DEFAULT_TIMEOUT) if registered.descriptor.timed else None,
                    implementation=registered.descriptor.implementation,
                    plugin=registered.plugin,
                    request=request,
                )
            )
        return tuple(given)

    def _materialize(self, node_id: str, *, consume: bool = False) -> Any:
        """The live output of a node: what it left in this process, or the same from its artifact."""
        if node_id not in self._live:
            artifact = self._artifacts[node_id]
            node = self._nodes[node_id]
            request = self._request(node, artifact, artifact)
            with bugs_explained(self._author(node)):
                self._live[node_id] = self._code(node).restore(request, artifact)
        return self._live.pop(node_id) if consume else self._live[node_id]

    def _code(self, node: Mapping[str, Any]) -> Any:
        code = load_symbol(node["implementation"])
        if node["stage"] != "prepare":
            return code()
        data_format = self._catalogue.formats[node["method"]].descriptor
        return code(load_symbol(data_format.implementation)(), data_format.kind)

    def _author(self, node: Mapping[str, Any]) -> str:
        """Whose bug it is, in the words of an error."""
        if node["stage"] == "prepare":
            plugin = self._catalogue.formats[node["method"]].plugin
        else:
            method = self._catalogue.methods.get((node["stage"], node["method"]))
            plugin = method.plugin if method else ""
        return f"the plugin {plugin}" if plugin else "the method"

    def _options(self, node: Mapping[str, Any]) -> Any:
        if node["stage"] == "prepare":
            data_format = self._catalogue.formats[node["method"]].descriptor
            return build_data_set(node["id"].partition(".")[2], node["options"], data_format.options)
        if node["stage"] == "tokenizer":
            return tuple(node["options"].get("new_tokens", ()))
        registered = self._catalogue.methods.get((node["stage"], node["method"]))
        if registered is None:
            return None
        options = registered.descriptor.options
        sources = {name: found.descriptor for name, found in self._catalogue.rewards.items()}
        return build(options, with_rewards(node["options"], options, sources))


def _share(rewards: Sequence[GivenReward], policy: Any) -> None:
    """One base in memory for a policy and the reward models on it."""
    from recipe_engine.training.sharing import share_frozen_weights

    for model in (reward.request.model for reward in rewards):
        if model is not None:
            share_frozen_weights(model, policy)


def seed_everything(seed: int) -> None:
    """Seed every generator that a stage might draw from."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def main() -> None:
    """Speak the protocol until the engine closes the pipe."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Libraries print. Their output goes to the log; the pipe to the engine is known to the channel alone.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    channel = Channel(sys.stdin.buffer, sink)
    with failures_reported(channel):
        begin = channel.commands.get()
        check_surroundings(begin.get("expects", {}))
        catalogue = load_catalogue(files=[Path(file) for file in begin["plugins"]])
        worker = Worker(begin, catalogue, channel)
        while True:
            command = channel.commands.get()
            if command["type"] == "generate":
                worker.generate(command)
            else:
                worker.run(command)


def _source(content: Mapping[str, Any]) -> ResolvedSource:
    files = (SourceFile(file["path"], Path(file["local"]), file["sha256"], file["size"]) for file in content["files"])
    return ResolvedSource(content["reference"], tuple(files))


def _die_with_parent() -> None:
    """Linux ends this process when the engine is killed, even in the middle of a long product."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
