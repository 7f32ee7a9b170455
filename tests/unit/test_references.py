"""References: images by digest, files in wheels."""

from __future__ import annotations

import pytest

from recipe_containers import ImageReference, UnpinnedImage, parse_image
from recipe_engine.methods.sources.references import WheelReference, parse_wheel

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("repository"),
    ["recipe-cuda", "me/recipe_cuda", "ghcr.io/me/recipe-cuda", "localhost:5000/a/b__c/d--e", "host.example/a.b"],
)
def test_an_image_of_a_repository(repository: str) -> None:
    reference = parse_image(f"{repository}@{DIGEST}")
    assert reference == ImageReference(repository, DIGEST)
    assert str(reference) == f"{repository}@{DIGEST}"


def test_a_bare_image() -> None:
    assert parse_image(DIGEST) == ImageReference("", DIGEST)
    assert str(parse_image(DIGEST)) == DIGEST


@pytest.mark.parametrize(
    "text",
    ["", "recipe-cuda", "recipe-cuda:12", "recipe-cuda@sha256:12", f"a@{DIGEST.upper()}", DIGEST[:-1], f"{DIGEST}\n"],
)
def test_an_image_without_a_digest(text: str) -> None:
    with pytest.raises(UnpinnedImage, match=r"^expected name@sha256:<64 hexadecimal digits>"):
        parse_image(text)


@pytest.mark.parametrize("repository", ["", "a:12", "A", "a//b", "a b", "a@b", "-a", "ghcr.io/"])
def test_a_name_that_is_none(repository: str) -> None:
    with pytest.raises(UnpinnedImage, match="is not an image name"):
        parse_image(f"{repository}@{DIGEST}")


def test_a_file_in_a_wheel() -> None:
    text = "llm-tiny==0.1.2/llm_tiny/a b.gguf#" + DIGEST.replace(":", "=")
    assert parse_wheel(text) == WheelReference("llm-tiny", "0.1.2", "llm_tiny/a b.gguf", DIGEST[7:])


@pytest.mark.parametrize("text", ["", "a==1/b", "a==1 0/b#sha256=0", "-a==1/b#" + DIGEST.replace(":", "=")])
def test_what_is_no_file_in_a_wheel(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not package==version/file#sha256=<64 hexadecimal digits>$"):
        parse_wheel(text)
