"""The flag by which a user allows code from outside to be imported."""

import tyro

Trust = tyro.conf.UseAppendAction[tuple[str, ...]]
"""`--trust package.module:function`, as often as needed."""
