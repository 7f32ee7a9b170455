"""A repository of the Hub that is written to: what it holds, and how a commit gets there."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import CARD_FILE
from recipe_engine.errors import StageFailed
from recipe_engine.methods.content import same_card
from recipe_engine.methods.hub_client import is_transient, patiently, status_of, wait_after
from recipe_engine.methods.hub_progress import counted_addition, xet_counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from recipe_engine.methods.content import Content
    from recipe_engine.methods.options import PushHub

MAIN = "main"
_ATTEMPTS = 4
_PROPOSALS_LOOKED_AT = 10
_CONFLICT = 409
_STALE = frozenset({_CONFLICT, 412})
Listing = dict[str, str]
"""Path -> sha256 of a large file, git's name of a small one."""


class HubRepository:
    """A repository and the client that is used to ask about it.

    Args:
        client: with the token of the account.
        options: of the push.
        work: a folder for what is fetched.
        say: called with a line for the person who watches.
    """

    def __init__(self, client: Any, options: PushHub, work: Path, say: Callable[[str], None]) -> None:
        self._client = client
        self._options = options
        self._work = work
        self._say = say
        self._name = options.repo

    def head(self, revision: str) -> str | None:
        """The commit of a branch; ``None`` where the repository or the branch is not there."""
        from huggingface_hub import errors

        try:
            found = self._ask(lambda: self._client.model_info(self._name, revision=revision))
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
            if status_of(error) == 404:
                return None
            raise
        commit: str = found.sha
        return commit

    def is_data_set(self) -> bool:
        """Whether it is there under this name, but as a data set."""
        from huggingface_hub import errors

        try:
            self._ask(lambda: self._client.dataset_info(self._name))
        except errors.RepositoryNotFoundError:
            return False
        return True

    def listing(self, commit: str) -> Listing:
        """The files of a commit."""
        found: Listing = self._ask(lambda: listed(self._client, self._name, commit))
        return found

    def holding(self, payload: Mapping[str, Content]) -> str | None:
        """A commit that holds this very content: the branch's, or of a pull request where one would be made."""
        commits = [self.head(self._options.branch)]
        if commits[0] and self._options.pull_request:
            found = self._ask(lambda: self._client.list_repo_refs(self._name, include_pull_requests=True))
            newest = sorted(found.pull_requests, key=_number)[-_PROPOSALS_LOOKED_AT:]
            commits += [proposal.target_commit for proposal in newest]
        return next((commit for commit in commits if commit and self._holds(commit, payload)), None)

    def prepare(self) -> None:
        """Make the repository and the branch, where they are not there."""
        options = self._options
        if options.pull_request:
            return
        if self.head(MAIN) is None:
            self._ask(self._make)
        if options.gated:
            info = self._ask(lambda: self._client.model_info(self._name))
            if info.gated != options.gated:
                self._ask(lambda: self._client.update_repo_settings(self._name, gated=options.gated))
        if options.branch != MAIN and self.head(options.branch) is None:
            self._ask(lambda: self._client.create_branch(self._name, branch=options.branch, exist_ok=True))

    def _make(self) -> None:
        from huggingface_hub import errors

        try:
            self._client.create_repo(self._name, private=self._options.private)
        except errors.HfHubHTTPError as error:
            if status_of(error) != _CONFLICT:  # somebody was quicker, or an answer was lost
                raise

    def upload(self, payload: Mapping[str, Content], progress: Callable[[int, int], None]) -> list[Any]:
        """Send the large files ahead, one by one: what arrived is not sent again. The additions of a commit.

        Raises:
            StageFailed: a file changed meanwhile.
        """
        from huggingface_hub import CommitOperationAdd

        total, done, additions = sum(content.size for content in payload.values()), 0, []
        for name, content in payload.items():
            if content.data is None:
                additions.append(self._sent(name, content, partial(_add_to, progress, done, total)))
            else:
                additions.append(CommitOperationAdd(name, content.data))
            done += content.size
            progress(done, total)
        return additions

    def _sent(self, name: str, content: Content, tell: Callable[[int], None]) -> Any:
        """The addition of a large file, which is sent ahead of the commit."""
        addition = counted_addition(name, content.path, tell)
        addition.upload_info.sha256 = bytes.fromhex(content.sha256)
        with _unchanged(content), xet_counted(tell):
            self._send(addition)
        return addition

    def commit(self, payload: Mapping[str, Content], additions: list[Any], message: str) -> tuple[str, str]:
        """One commit of all files on top of the branch as it is; somebody else's commit meanwhile goes below it.

        Returns:
            Its oid, and the address of the pull request that it is in, or ``""``.

        Raises:
            StageFailed: somebody else changed one of the files meanwhile.
        """
        first: Listing | None = None
        for attempt in range(_ATTEMPTS):
            if there := self.holding(payload):
                return there, ""  # it was made, and its answer was lost, or nobody could read it back
            head = self.head(self._options.branch)
            now = self.listing(head) if head else {}
            first = now if first is None else first
            if changed := [name for name in payload if now.get(name) != first.get(name)]:
                raise StageFailed(
                    f"somebody else changed {changed[0]} of {self._name} meanwhile, and it is kept.",
                    "Look at it, and give the same command again to replace it.",
                )
            try:
                return self._commit(additions, message, head)
            except Exception as error:
                if not self._may_go_on(error, attempt):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def fetch(self, name: str, commit: str) -> Path:
        """A file of a commit, fetched anew."""
        fetch = self._client.hf_hub_download
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a disk that will be too small: if it is, the error says so
            return Path(self._ask(lambda: fetch(self._name, name, revision=commit, cache_dir=self._work)))

    def _commit(self, additions: list[Any], message: str, head: str | None) -> tuple[str, str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a card that the Hub would like to be longer
            made = self._client.create_commit(
                self._name,
                additions,
                commit_message=message,
                revision=self._options.branch,
                create_pr=self._options.pull_request,
                parent_commit=head,
            )
        return made.oid, made.pr_url or ""

    def _may_go_on(self, error: Exception, attempt: int) -> bool:
        """Whether another attempt may succeed; the wait before it is over then."""
        if attempt + 1 == _ATTEMPTS:
            return False
        if status_of(error) in _STALE:
            self._say("somebody else committed meanwhile; trying again on top of it")
            return True
        if is_transient(error):
            wait_after(error, attempt, self._say)
            return True
        return False

    def _send(self, addition: Any) -> None:
        self._ask(
            lambda: self._client.preupload_lfs_files(
                self._name,
                [addition],
                revision=self._options.branch,
                create_pr=self._options.pull_request,
                free_memory=False,
            )
        )

    def _holds(self, commit: str, payload: Mapping[str, Content]) -> bool:
        there = self.listing(commit)
        different = [
            name for name, content in payload.items() if there.get(name) not in (content.sha256, content.git_oid)
        ]
        if different == [CARD_FILE] and CARD_FILE in there:
            return same_card(CARD_FILE, payload[CARD_FILE].path, self.fetch(CARD_FILE, commit))
        return not different

    def _ask(self, action: Callable[[], Any]) -> Any:
        return patiently(action, self._say)


def _add_to(progress: Callable[[int, int], None], done: int, total: int, sent: int) -> None:
    progress(min(done + sent, total), total)


def listed(client: Any, name: str, commit: str) -> Listing:
    """The files of a commit.

    Args:
        client: of the Hub.
        name: of the repository.
        commit: of it.
    """
    entries = client.list_repo_tree(name, recursive=True, revision=commit)
    files = [entry for entry in entries if hasattr(entry, "blob_id")]
    return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}


@contextmanager
def _unchanged(content: Content) -> Iterator[None]:
    """See to it that a file is what was hashed, whatever else went wrong.

    Raises:
        StageFailed: where it is not.
    """
    try:
        yield
    finally:
        if content.has_changed:
            raise StageFailed(f"{content.path} changed while it was sent.", "Give the same command again.") from None


def _number(proposal: Any) -> int:
    """Of a pull request: ``refs/pr/3``."""
    last = proposal.ref.rpartition("/")[2]
    return int(last) if last.isdigit() else 0
