"""Bytes that a device sends in a step, counted: `python benchmarks/reduced.py [--processes P] [--devices D]`.

Nothing is computed and no device is needed; networks are outlines.
"""

import argparse

import equinox as eqx
import jax

from sfumato.core.devices import Layout
from sfumato.features import by_name
from sfumato.train.spread import bytes_reduced

NETWORKS = {
    "wrn-16-4": (32, 32, 3),
    "wrn-28-10": (32, 32, 3),
    "vit_base_patch16_224": (224, 224, 3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--devices", type=int, default=8, help="of each process")
    parser.add_argument(
        "--parts", type=int, default=32, help="physical batches of a device in a step"
    )
    asked = parser.parse_args()
    layout = Layout((None,) * asked.devices, 0, asked.processes)
    for name, shape in NETWORKS.items():
        made = eqx.filter_eval_shape(by_name.network, name, shape, 10, jax.random.key(0), None)
        params = eqx.filter(made, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        sent = bytes_reduced(params, layout, asked.parts)
        print(f"{name:20} {size / 1e6:7.1f} M parameters  {sent['a step'] / 1e6:9.1f} MB a step")


if __name__ == "__main__":
    main()
