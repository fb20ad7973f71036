"""Trees of numbers no two of which may have one seal, whoever makes it: the host or the device."""

import numpy as np

WHOLE = np.arange(6, dtype=np.float32)
TREES = (
    {"a": WHOLE},
    {"b": WHOLE},
    {"a": WHOLE.reshape(2, 3)},
    {"a": WHOLE.view(np.int32)},
    {"a": np.nextafter(WHOLE, np.float32(9))},
    {"a": WHOLE[[1, 0, 2, 3, 4, 5]]},
    {"a": WHOLE[:3], "b": WHOLE[3:]},
    {"a": WHOLE[:2], "b": WHOLE[2:]},
    {"a": WHOLE.astype(np.float64)},
    {"a": WHOLE.astype(np.float64) + 1e-12},
)
