"""What is added or removed, in words."""


def whole_unit(noun: str, most: int | None) -> str:
    """("image", None) -> "image"; ("patient", 8) -> "patient with up to 8 images"."""
    return noun if most is None else f"{noun} with up to {most:,} image{'s' if most > 1 else ''}"
