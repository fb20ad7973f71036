"""Every array shape and type that a signature promises is checked while the tests run (jaxtyping + beartype)."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("sfumato", "typecheck.check")
