"""`BoundedSum` -> a value that may be released."""

from sfumato.noise.gaussian import Gaussian

__all__ = ["Gaussian"]
