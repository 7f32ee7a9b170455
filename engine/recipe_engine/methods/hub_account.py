"""What an account of the Hub may do, as far as its token tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.errors import UnfitEnvironment
from recipe_engine.methods.hub_client import LOG_IN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recipe_engine.methods.options import PushHub

_WRITES = frozenset({"repo.write"})
_PROPOSES = frozenset({"repo.write", "discussion.write"})


def check_account(account: Mapping[str, Any], options: PushHub) -> None:
    """Whether a token can write where it should; what it does not tell, the Hub will say.

    Args:
        account: the answer of ``whoami-v2``.
        options: of the push.

    Raises:
        UnfitEnvironment: where it certainly cannot.
    """
    owner = options.repo.partition("/")[0]
    token = account.get("auth", {}).get("accessToken", {})
    role = token.get("role")
    if role == "read":
        raise UnfitEnvironment(f"the token of {account['name']} can only read.", f"Make one that can write. {LOG_IN}")
    if role == "fineGrained" and not _granted(token.get("fineGrained", {}), options):
        raise UnfitEnvironment(
            f"the fine-grained token of {account['name']} does not let it write into {options.repo}.",
            f'Give it write access to the repositories of {owner} ("repo.write").',
        )
    namespaces = [account["name"], *(found["name"] for found in account.get("orgs", ()) if _may_write(found))]
    if owner not in namespaces and not options.pull_request:
        raise UnfitEnvironment(
            f"{account['name']} may not write into {options.repo}: it may into {', '.join(namespaces)}.",
            "Correct repo, log in as somebody who may, or write pull_request = true.",
        )


def _may_write(organization: Mapping[str, Any]) -> bool:
    return organization.get("roleInOrg") != "read"


def _granted(grants: Mapping[str, Any], options: PushHub) -> bool:
    wanted = _PROPOSES if options.pull_request else _WRITES
    places = {options.repo, options.repo.partition("/")[0]}
    permissions = set(grants.get("global", ()))
    for scope in grants.get("scoped", ()):
        if options.pull_request or scope.get("entity", {}).get("name") in places:
            permissions.update(scope.get("permissions", ()))
    return bool(permissions & wanted)
