"""A network that learned to see elsewhere, and a private head on what it sees.

    python examples/transfer.py WEIGHTS     a file or a name on the hub, for color images of its size
    python examples/transfer.py             weights that are trained here, on digits that are taken for public

The second takes a minute. Whatever the weights were learned from must be public: no epsilon covers it.
"""

import sys
from pathlib import Path

import numpy as np

import sfumato as sf
from sfumato.cli import main

digits = sf.data.open("digits")
images, labels = digits.train[np.arange(len(digits.train))]
test_images, test_labels = digits.test[np.arange(len(digits.test))]
half = len(images) // 2
np.savez(
    "public.npz",
    x_train=images[:half],
    y_train=labels[:half],
    x_test=test_images,
    y_test=test_labels,
)
np.savez(
    "private.npz",
    x_train=images[half:],
    y_train=labels[half:],
    x_test=test_images,
    y_test=test_labels,
)

given = sys.argv[1:2]
if given:
    weights = given[0]
elif Path("public.safetensors").exists():
    weights = "public.safetensors"
else:
    weights = "public.safetensors"
    main(f"pretrain --data public.npz --model wrn-10-1 --epochs 8 --out {weights}".split())

main(f"train --data private.npz --weights {weights} --epsilon 3 --out runs/transfer".split())
main(["evaluate", "runs/transfer"])
