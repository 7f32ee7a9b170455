"""Container images by digest, and commands in them. A leaf: it knows nothing of the engine."""

from recipe_containers.errors import ContainerError, EngineRefused, EngineUnavailable, ImageDiffers, ImageMissing
from recipe_containers.reference import ImageReference, UnpinnedImage, parse_image

__all__ = [
    "ContainerError",
    "EngineRefused",
    "EngineUnavailable",
    "ImageDiffers",
    "ImageMissing",
    "ImageReference",
    "UnpinnedImage",
    "parse_image",
]
