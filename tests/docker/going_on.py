"""What holds for a run that goes on where another one was stopped."""

from __future__ import annotations

from tests.e2e.engine import Finished, Workspace, digests


def goes_on(workspace: Workspace, expected: Finished) -> None:
    """The next run takes up the last checkpoint and makes the same bytes as one that nobody stopped."""
    done = workspace.run()
    texts = [event["text"] for event in done.events if event["type"] == "node_message"]
    assert any(text.startswith("going on from the checkpoint of step ") for text in texts)
    assert digests(done.result) == digests(expected.result)
    assert workspace.leftovers() == []
