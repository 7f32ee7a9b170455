"""The Hub's client as the engine uses it: silent, patient, and with errors in our terms."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
LOG_IN = "Log in with: hf auth login"
_BAD_REQUEST = 400
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_WAITS_SECONDS = (1, 2, 4, 8)
_LONGEST_WAIT_SECONDS = 300
_SILENCE = frozenset({"ConnectError", "ConnectTimeout", "ReadTimeout"})


def open_client(token: str | None) -> Any:
    """A client that draws no bars, logs nothing and sends no telemetry.

    Args:
        token: of the account; nobody's where ``None``.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import disable_progress_bars, logging

    from recipe_engine import __version__

    constants.HF_HUB_DISABLE_TELEMETRY = True  # the client reads the environment when it is imported: too early
    logging.set_verbosity_error()
    disable_progress_bars()
    return HfApi(library_name="recipe-engine", library_version=__version__, token=token or False)


def card_problems(client: Any, text: str) -> list[str]:
    """What the Hub would refuse of a model card; it is asked, and nothing is published.

    Args:
        client: from :func:`open_client`.
        text: of the card.
    """
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = build_hf_headers(
        token=client.token, library_name=client.library_name, library_version=client.library_version
    )
    asked = {"content": text, "repoType": "model"}
    answer = get_session().post(f"{client.endpoint}/api/validate-yaml", json=asked, headers=headers)
    if answer.status_code != _BAD_REQUEST:
        hf_raise_for_status(answer)
        return []
    found = [problem.get("message", "") for problem in answer.json().get("errors", ())]
    return found or ["the Hub does not say why"]


def patiently(action: Callable[[], T], say: Callable[[str], None], *, silence: bool = True) -> T:
    """What an action gives; it is tried again while the Hub is busy or the connection is lost.

    Args:
        action: asks the Hub, and may do so twice.
        say: called with a line for the person who waits.
        silence: whether to try again where nobody answers at all.
    """
    for attempt in range(len(_WAITS_SECONDS)):
        try:
            return action()
        except Exception as error:
            if not is_transient(error) or not (silence or _answered(error)):
                raise
            wait_after(error, attempt, say)
    return action()


def wait_after(error: Exception, attempt: int, say: Callable[[str], None]) -> None:
    """Wait before another attempt: as long as the Hub asks for, within reason, else longer each time.

    Args:
        error: that is transient.
        attempt: how many there were before it.
        say: called with a line for the person who waits.
    """
    response = _response(error)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    seconds = min(int(asked), _LONGEST_WAIT_SECONDS) if asked.isdigit() else _WAITS_SECONDS[attempt]
    say(f"{trouble(error)}; trying again in {seconds} s")
    time.sleep(seconds)


def is_transient(error: BaseException) -> bool:
    """Whether the same may succeed a little later."""
    from huggingface_hub import errors

    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT
    # The page of a gateway, where JSON should be, is no answer of the Hub's.
    lost = (errors.HTTPError, json.JSONDecodeError)
    return any(isinstance(cause, lost) for cause in _causes(error))


def _answered(error: BaseException) -> bool:
    """Whether there was somebody at the other end."""
    return not any(type(cause).__name__ in _SILENCE for cause in _causes(error))


def trouble(error: BaseException) -> str:
    """What went wrong between us and the Hub; none of the client's own words, which name addresses and requests."""
    from huggingface_hub import errors

    status = status_of(error)
    if status is not None:
        return f"the Hub answered with status {status}"
    lost = [cause for cause in _causes(error) if isinstance(cause, errors.HTTPError)]
    if lost:
        return f"the Hub cannot be reached ({type(lost[-1]).__name__})"
    reasons = (getattr(cause, "strerror", None) for cause in _causes(error))  # of a disk that is full
    return next(filter(None, reasons), type(error).__name__)


def status_of(error: BaseException) -> int | None:
    """The status of the answer that an error is about."""
    response = _response(error)
    return None if response is None else int(response.status_code)


def _response(error: BaseException) -> Any:
    return next((found for cause in _causes(error) if (found := getattr(cause, "response", None)) is not None), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, as the client wraps what happens in its threads."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
