"""Probes of what this machine reaches: the container engine and the Hub."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECONDS = 4.0
"""How long the Hub may take to answer."""
# The name of the first component in the answer to GET /version.
_ENGINES = {"Engine": "Docker", "Podman Engine": "Podman"}
_LOG_IN = "Log in with: hf auth login"
_NO_TOKEN = Finding("token", "warning", "none: what is private or gated is closed, and nothing can be pushed", _LOG_IN)
_TOOLKIT = (
    "Install the NVIDIA Container Toolkit: sudo apt-get install nvidia-container-toolkit, "
    "sudo nvidia-ctk runtime configure, and restart the engine"
)


def look_at_containers() -> Sequence[Finding]:
    """The container engine, whether this user may speak to it, and whether it can hand on GPUs."""
    from recipe_containers import ContainerError
    from recipe_containers.client import connect, engine_url

    try:
        with closing(connect()) as client:
            version, runtimes = client.version(), client.info().get("Runtimes") or {}
    except ContainerError as error:
        return [Finding("containers", "warning", error.message, error.hint)]
    parts = version.get("Components") or [{}]
    name = parts[0].get("Name", "Engine")
    findings = [Finding("containers", "ok", f"{_ENGINES.get(name, name)} {version['Version']} at {engine_url()}")]
    if "nvidia" in runtimes:
        findings.append(Finding("nvidia-runtime", "ok", "containers can have GPUs"))
    elif Path("/proc/driver/nvidia/version").exists():
        findings.append(Finding("nvidia-runtime", "warning", "the engine has no NVIDIA runtime", _TOOLKIT))
    return findings


def look_at_hub() -> Sequence[Finding]:
    """Whether the Hub answers, and what the token may do; the token itself is never shown."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import build_hf_headers, get_session

    token, place = get_token(), constants.ENDPOINT
    untold = [Finding("token", "unknown", "there is one; the Hub would say what it may do")] if token else [_NO_TOKEN]
    if constants.HF_HUB_OFFLINE:
        text = "not asked, as HF_HUB_OFFLINE is set: only what was downloaded can be used"
        return [Finding("hub", "unknown", text, "Unset it: unset HF_HUB_OFFLINE"), *untold]
    headers = build_hf_headers(token=token or False)
    try:
        answer = get_session().get(f"{place}/api/whoami-v2", headers=headers, timeout=SECONDS)
    except (HTTPError, OSError) as error:
        mend = "Connect to the network, or look at HF_ENDPOINT and the proxy."
        return [Finding("hub", "warning", f"{place} does not answer ({type(error).__name__})", mend), *untold]
    if answer.status_code not in (200, 401, 403):
        text = f"{place} answers with status {answer.status_code}"
        return [Finding("hub", "warning", text, "Try again later, or look at HF_ENDPOINT."), *untold]
    reached = Finding("hub", "ok", f"{place} answers")
    if token is None:
        return [reached, _NO_TOKEN]
    if answer.status_code == 200:
        return [reached, Finding("token", "ok", scope(answer.json()))]
    return [reached, Finding("token", "warning", "the Hub refuses it: it has expired or was revoked", _LOG_IN)]


def scope(account: Mapping[str, Any]) -> str:
    """Whose a token is and what it may do, from what the Hub says of it (``whoami-v2``)."""
    token = account.get("auth", {}).get("accessToken", {})
    role = token.get("role", "")
    if not role:
        return f"of {account['name']}; the Hub does not say what it may do"
    if role != "fineGrained":
        return f"of {account['name']}, it may {role}"
    scoped = token.get("fineGrained", {}).get("scoped", ())
    writable = sorted(item["entity"]["name"] for item in scoped if "repo.write" in item["permissions"])
    return f"of {account['name']}, it may write to {', '.join(writable) or 'nothing'} (fine-grained)"
