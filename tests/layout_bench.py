"""What several devices or processes compute, each in a process of its own, because JAX counts devices
once.

    layout_bench.py check NAME ...     a script: on eight virtual devices; prints the names of those that hold
    command(...)                       the command line, in a process forked from one that has imported this

A bug named by the variable PLANTED is planted first.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import conftest  # noqa: F401, I001

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sfumato.cli import main
from sfumato.clip import clipped_grad
from sfumato.core.keys import SecretKey
from sfumato.core.devices import Layout, shapes_of
from sfumato.noise import Gaussian
from sfumato.privacy.ledger import Ledger
from sfumato.sampling import Poisson
from sfumato.train import loop
from sfumato.train.dpsgd import DPSGD

PRELOAD = [
    "layout_bench",
    "sfumato.cli.train",
    "sfumato.runs.training",
    "sfumato.report",
    "dp_accounting.pld",
    "sklearn.datasets",
]
"""What a command imports, this module first."""
KEY = SecretKey.from_insecure_seed(3)
N, SIDE, CLASSES = 53, 6, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((N, SIDE, SIDE, 2)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, N).astype(np.int32)
PARAMS = {
    "kernel": (RNG.standard_normal((3, 3, 2, 8)) / 4).astype(np.float32),
    "dense": (RNG.standard_normal((SIDE * SIDE * 8, CLASSES)) / 9).astype(np.float32),
    "bias": np.zeros(CLASSES, np.float32),
}


def loss(params, example):
    image, label = example
    found = jax.lax.conv_general_dilated(
        image[None], params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    scores = jnp.tanh(found).ravel() @ params["dense"] + params["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(scores, label)


def layout(count, **settings):
    return Layout(tuple(jax.devices()[:count]), **settings)


def trainer(where, **change):
    settings = {
        "params": PARAMS,
        "clipped": clipped_grad(loss, 0.5, normalized=True),
        "sampler": Poisson(0.6, 3, N),
        "noise": Gaussian(2.0),
        "optimizer": optax.adam(0.1),
        "fetch": lambda indices, step: (IMAGES[indices], LABELS[indices]),
        "physical_batch_size": 4,
        "ema_decay": 0.9,
        "layout": where,
    }
    return DPSGD(**{**settings, **change})


CUT = {"whole": 0, "leaf": 1024}
"""Parameters that count as large, and of them the leaves that do."""


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(leaves(one), leaves(two), strict=True))


def sums():
    """On 1, 4 and 8 devices, and of cut leaves: one sum to the last bit; and it is the right one."""
    alone = trainer(layout(1))
    state = alone.start()
    for step in range(2):
        wanted = alone.measure(state, step, KEY)
        for where in (layout(4), layout(8), layout(4, **CUT)):
            spread = trainer(where)
            found = spread.measure(spread.start(), step, KEY)
            assert found.sensitivity == wanted.sensitivity
            assert same(found.value, wanted.value), "another sum on more devices"
    indices = alone.sampler.indices(KEY, 1)
    one = jax.jit(clipped_grad(loss, 0.5, normalized=True, method="materialize").__call__)
    slow = one(PARAMS, (IMAGES[indices], LABELS[indices]), np.ones(len(indices), bool)).value
    for a, b in zip(leaves(slow), leaves(wanted.value), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, err_msg="not the sum of all examples")


def releases(where, directory):
    with Ledger.create(directory, delta=1e-3, epsilon_max=50.0) as ledger:
        method = trainer(where)
        state = loop.run(method, ledger, KEY)
        assert ledger.releases == 3
    return state


def runs():
    """Parameters, average and optimizer of a run are the same to the last bit, and cut where they are
    large."""
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        wanted = releases(layout(1), f"{root}/one")
        for count, settings in ((4, {}), (8, CUT)):
            found = releases(layout(count, **settings), f"{root}/{count}")
            assert same(found, wanted), "another run on more devices"
    cut = {
        leaf.shape: held
        for leaf, held in zip(jax.tree.leaves(found), shapes_of(found), strict=True)
    }
    assert cut[288, 3] == (36, 3), "a device holds more than its share of a large leaf"
    assert cut[3, 3, 2, 8] == (3, 3, 2, 8), "small leaves are everywhere"
    held = [
        each
        for each, leaf in zip(shapes_of(found), jax.tree.leaves(found), strict=True)
        if leaf.shape == (288, 3)
    ]
    assert len(held) == 4 and set(held) == {(36, 3)}, "the optimizer's and the average, too"


def noise():
    """The release of a step on four devices is its sum and noise of the promised size."""
    spread = trainer(layout(4), noise=Gaussian(50.0))
    total = spread.measure(spread.start(), 0, KEY)
    exact = trainer(layout(1)).measure(trainer(layout(1)).start(), 0, KEY)
    released = spread.mechanism(0)(total, KEY.at("dp-sgd/0"))
    drawn = np.concatenate(
        [
            (np.asarray(a) - np.asarray(b)).ravel()
            for a, b in zip(leaves(released), leaves(exact.value), strict=True)
        ]
    )
    wanted = 50.0 * exact.sensitivity.add_or_remove
    assert abs(drawn.std() / wanted - 1) < 5 / (2 * len(drawn)) ** 0.5, "noise of another size"


def rows():
    """Features and probabilities of an image do not depend on how many devices there are."""
    from sfumato.core import devices
    from sfumato.data.source import from_arrays
    from sfumato.features.by_name import skeleton
    from sfumato.features.extraction import extract
    from sfumato.plan.public_weights import feature_map
    from sfumato.runs.classifier import Classifier, Spec

    images = RNG.integers(0, 255, (150, 8, 8, 1)).astype(np.uint8)
    source = from_arrays(images, RNG.integers(0, 3, 150), ("a", "b", "c"))
    features = feature_map("scattering", (8, 8, 1), None)
    model = jax.tree.map(
        lambda leaf: (
            jnp.asarray(RNG.standard_normal(leaf.shape) / 4, leaf.dtype)
            if isinstance(leaf, jax.ShapeDtypeStruct)
            else leaf
        ),
        skeleton("cnn", None, (8, 8, 1), 3),
    )
    found = []
    for count in (1, 8):
        devices.begin(devices=count)
        classifier = Classifier(Spec("cnn", None, (8, 8, 1), ("a", "b", "c")), model)
        many = np.repeat(images, 8, axis=0)
        found.append((extract(features, source), classifier.probabilities(many)))
    assert found[0][0].shape[0] == 150 and same(*found), "another row on more devices"


def empty():
    """A batch of nobody is a legal step on any layout."""
    nobody = trainer(layout(4), sampler=Poisson(1e-12, 1, N))
    total = nobody.measure(nobody.start(), 0, KEY)
    assert all(np.all(leaf == 0) for leaf in leaves(total.value))
    nobody.rehearse(nobody.start())


def audit():
    """Gradient canaries over four devices see most of what is claimed, and no more."""
    import test_audit

    from sfumato.audit import canaries

    claim = test_audit.claim_of(8.0, 5)
    method = test_audit.trainer(claim, layout=layout(4), physical_batch_size=16)
    family, *others = canaries.whitebox(method, claim, test_audit.stream(), canaries=400, runs=10)
    assert not family.broken and not any(each.broken for each in others)
    assert family.lower_bound > 0.8 * claim.epsilon, family


def strike_at(place, count):
    """Kill this process when it comes to `place` for the count-th time."""
    import signal

    from sfumato.runs.together import JointLedger

    owner, name, after = {
        "before payment": (JointLedger, "spend", False),
        "after payment": (JointLedger, "spend", True),
        "before update": (DPSGD, "absorb", False),
        "after update": (DPSGD, "absorb", True),
    }[place]
    whole, seen = getattr(owner, name), []

    def struck(*args, **kwargs):
        seen.append(1)
        if len(seen) == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = whole(*args, **kwargs)
        if len(seen) == count and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, struck)


def command(arguments, devices, told, strike):
    """The command line on so many devices. told: a file for all that it says. strike: (place, n)."""
    with open(told, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdout, sys.stderr = (os.fdopen(k, "w", closefd=False) for k in (1, 2))
    jax.config.update("jax_num_cpu_devices", devices)
    if strike:
        strike_at(*strike)
    try:
        main(list(arguments))
    finally:
        jax.distributed.shutdown()  # as the end of an interpreter does


if __name__ == "__main__":
    if planted := os.environ.get("PLANTED"):
        import mutations

        for edit in mutations.BY_NAME[planted].edits:
            edit.plant()
    assert sys.argv[1] == "check" and jax.device_count() == 8
    for name in sys.argv[2:]:
        globals()[name]()
        print(name, flush=True)
