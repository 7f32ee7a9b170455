"""Container images by digest. A leaf: it knows nothing of the engine."""

from recipe_containers.reference import ImageReference, UnpinnedImage, parse_image

__all__ = ["ImageReference", "UnpinnedImage", "parse_image"]
