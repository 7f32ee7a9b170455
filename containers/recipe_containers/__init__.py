"""Container images by digest, and commands in them. A leaf: it knows nothing of the engine."""

from recipe_containers.errors import (
    BuildFailed,
    ContainerError,
    EngineRefused,
    EngineUnavailable,
    ImageDiffers,
    ImageMissing,
)
from recipe_containers.images import ImageFacts
from recipe_containers.reference import ImageReference, UnpinnedImage, parse_image

__all__ = [
    "BuildFailed",
    "ContainerError",
    "EngineRefused",
    "EngineUnavailable",
    "ImageDiffers",
    "ImageFacts",
    "ImageMissing",
    "ImageReference",
    "UnpinnedImage",
    "parse_image",
]
