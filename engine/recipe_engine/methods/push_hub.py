"""``push.hub`` -- a result on the Hugging Face Hub, in one commit that is read back."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import CARD_FILE
from recipe_engine.errors import PushUnverified, RecipeError, StageFailed, UnfitEnvironment
from recipe_engine.methods.content import content_of, same_card
from recipe_engine.methods.hub_account import check_account
from recipe_engine.methods.hub_client import (
    LOG_IN,
    card_problems,
    is_transient,
    open_client,
    patiently,
    status_of,
    trouble,
)
from recipe_engine.methods.hub_repository import MAIN, HubRepository
from recipe_engine.methods.hub_token import NO_TOKEN, find_token
from recipe_engine.tensors import shapes_of
from recipe_registry import sha256_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recipe_engine.contract import PushRequest
    from recipe_engine.methods.content import Content
    from recipe_engine.methods.options import PushHub as Options

_WEIGHTS_FILE = ".safetensors"
_KEPT = "What was computed is kept: the same command goes on here."


class PushHub:
    """Publishes a payload; other files of the repository are left alone."""

    def __init__(self) -> None:
        self._payload: dict[str, Content] = {}

    def check(self, request: PushRequest) -> None:
        """Whether the account may write there, and whether the Hub takes the card.

        Raises:
            UnfitEnvironment: where not, or where the Hub cannot be reached.
        """
        options, say = request.options, request.reporter.message
        client = _client(request)
        repository = HubRepository(client, options, request.work, say)
        with _explained(request, UnfitEnvironment):
            account = patiently(client.whoami, say)
            check_account(account, options)
            if repository.head(MAIN) is None:
                _check_new(repository, options)
            _check_card(client, request, UnfitEnvironment)

    def is_current(self, request: PushRequest) -> bool:
        """Whether the branch, or a pull request to it, holds this content already."""
        client = _client(request)
        repository = HubRepository(client, request.options, request.work, request.reporter.message)
        with _explained(request, StageFailed):
            return repository.holding(self._read(request)) is not None

    def push(self, request: PushRequest) -> Mapping[str, Any]:
        """Make the repository where there is none, commit everything at once, and read it back.

        Raises:
            StageFailed: the Hub refuses it or cannot be reached, or somebody else changed the same files.
            PushUnverified: it was published, and what is there is not what was meant, or cannot be read.
        """
        client, payload = _client(request), self._read(request)
        repository = HubRepository(client, request.options, request.work, request.reporter.message)
        with _explained(request, StageFailed):
            _check_card(client, request, StageFailed)
            repository.prepare()
            additions = repository.upload(payload, lambda done, total: request.reporter.progress(done, total, "bytes"))
            commit, proposal = repository.commit(payload, additions, f"{request.name}, made by the recipe engine")
        _verify(request, repository, payload, commit)
        address = proposal or f"{client.endpoint}/{request.options.repo}/tree/{commit}"
        return {
            "repository": request.options.repo,
            "commit": commit,
            "branch": request.options.branch,
            "address": address,
            "digest": request.digest,
            "files": sorted(request.files),
        }

    def _read(self, request: PushRequest) -> Mapping[str, Content]:
        if not self._payload:
            self._payload = {name: content_of(path) for name, path in sorted(request.files.items())}
        return self._payload


def _client(request: PushRequest) -> Any:
    """A client with the token.

    Raises:
        UnfitEnvironment: there is none.
    """
    token = find_token(request.folder)
    if not token:
        raise UnfitEnvironment(f"{request.options.repo}: {NO_TOKEN[0]}", NO_TOKEN[1])
    return open_client(token)


def _check_new(repository: HubRepository, options: Options) -> None:
    """What a repository must not be that is not there yet."""
    if repository.is_data_set():
        raise UnfitEnvironment(f"{options.repo} is a data set, and a model is pushed.", "Give it another name in repo.")
    if options.pull_request:
        raise UnfitEnvironment(
            f"there is no model {options.repo} to propose a change to, or this account may not see it.",
            f"Check the name, or leave pull_request out. {LOG_IN}",
        )


def _check_card(client: Any, request: PushRequest, kind: type[RecipeError]) -> None:
    text = request.files[CARD_FILE].read_text(encoding="utf-8")
    problems = patiently(lambda: card_problems(client, text), request.reporter.message)
    if problems:
        hint = "Correct license or language in the recipe's push table, or the names in [model] and [data]."
        raise kind(f"the Hub refuses the model card: {'; '.join(problems)}.", hint)


def _verify(request: PushRequest, repository: HubRepository, payload: Mapping[str, Content], commit: str) -> None:
    """Read every file back from the commit, byte by byte, and open the weights.

    Raises:
        PushUnverified: where one is not what was meant, or cannot be read.
    """
    where = f"{request.options.repo} at {commit}"
    try:
        for done, (name, content) in enumerate(payload.items(), 1):
            found = repository.fetch(name, commit)
            if sha256_file(found) != content.sha256 and not same_card(name, found, content.path):
                hint = "Give the same command again to read it once more; if it stays so, delete it on the Hub first."
                raise PushUnverified(f"{where} does not hold {name} as it was sent.", hint)
            if name.endswith(_WEIGHTS_FILE) and not dict(shapes_of(found)):
                raise PushUnverified(f"{where}: {name} holds no weights.", "Look at the artifact of the training.")
            found.resolve().unlink()
            request.reporter.progress(done, len(payload), "files read back")
    except RecipeError:
        raise
    except Exception as error:
        if not _is_of_the_hub(error) and not isinstance(error, OSError):  # the client's own complaint of a size
            raise
        hint = "Give the same command again: it reads what is there once more."
        raise PushUnverified(f"{where} was published and cannot be read back: {trouble(error)}.", hint) from None


@contextmanager
def _explained(request: PushRequest, kind: type[RecipeError]) -> Iterator[None]:
    """The client's errors in our terms."""
    try:
        yield
    except RecipeError:
        raise
    except Exception as error:
        if not _is_of_the_hub(error):
            raise
        message, hint = _refusal(error, request.options)
        raise kind(message, hint if kind is UnfitEnvironment else f"{hint} {_KEPT}") from None


def _is_of_the_hub(error: Exception) -> bool:
    from huggingface_hub import errors

    return is_transient(error) or status_of(error) is not None or isinstance(error, errors.OfflineModeIsEnabled)


def _refusal(error: Exception, options: Options) -> tuple[str, str]:
    """What the Hub's answer means, and what to do about it."""
    repo = options.repo
    match status_of(error):
        case 401:
            return "the Hub refuses the token: it is wrong or has expired.", f"{LOG_IN}, or set HF_TOKEN anew."
        case 403:
            return (
                f"this account may not write into {repo}.",
                "Name a repository of your own, take a token with write access, or write pull_request = true.",
            )
        case 404:
            return f"the Hub has no {repo} with the branch {options.branch}, or this account may not see it.", LOG_IN
        case 400 | 422:
            return f"the Hub refuses what was sent for {repo}.", "Check the name in repo: the Hub has rules for it."
        case 409 | 412:
            return f"others keep committing to {repo}, and each time theirs was there first.", "Try again later."
        case None if not is_transient(error):
            return "the Hub cannot be asked: HF_HUB_OFFLINE is set.", "Unset it, or leave [push.hub] out."
    return f"{repo}: {trouble(error)}.", "Look at the connection, and try again later."
