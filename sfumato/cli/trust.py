"""The flag by which a user allows code from outside to be imported."""

from typing import Annotated

import tyro

Trust = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        help="Code from outside that the run was begun with, package.module:function or Class; without "
        "this flag it is not imported. As often as needed."
    ),
]
