"""The laws of a release, on the jobs that a user runs: what `runs/jobs.py` builds, from images to
sums, for every method.

The engine, the samplers and the noise have laws of their own. These look at how they were put
together.
"""

from collections import Counter

import jax
import numpy as np
import pytest

from sfumato.core.keys import SecretKey
from sfumato.data.source import DataInfo, Source, from_arrays
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, TrainConfig
from sfumato.plan.making import make_plan
from sfumato.plan.plan import Plan
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent
from sfumato.runs.jobs import Job, build
from sfumato.runs.progress import Quiet

KEY = SecretKey.from_insecure_seed(21)
N = 24
NETWORK = MethodConfig(
    "dp-sgd", "cnn", views=4, steps=2, batch=N, physical_batch_size=16, learning_rate=0.5
)
METHODS = {
    "dp-sgd on images": NETWORK,
    "dp-sgd on features": MethodConfig("dp-sgd", "scattering", steps=2, batch=N),
    "dp-fc": MethodConfig("dp-fc", "scattering"),
    "ls": MethodConfig("ls", "scattering"),
    "newton": MethodConfig("newton", "scattering", steps=2),
    "fc": MethodConfig("fc", "scattering", steps=2),
    "adam": MethodConfig("adam", "scattering", steps=2),
    "means": MethodConfig("means", "scattering"),
}
MOST_STEPS = 4
QUICK = ("dp-sgd on features", "ls", "means")
EACH = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in METHODS]


def images() -> Source:
    """Gray noise around a shade per class, but for the last image: full contrast, the one that will
    be missing."""
    stream, labels = np.random.default_rng(5), np.arange(N) % 3
    pixels = 0.4 + 0.05 * labels[:, None, None, None] + 0.01 * stream.standard_normal((N, 8, 8, 1))
    pixels[-1] = np.indices((8, 8)).sum(0)[..., None] % 2
    return from_arrays(pixels.astype(np.float32), labels)


def plan_of(method: MethodConfig, source: Source) -> Plan:
    info = DataInfo("arrays", "memory", source.class_names, source.shape, {"train": len(source)})
    return make_plan(TrainConfig(DataConfig("arrays"), PrivacyConfig(epsilon=50.0), method), info)


def job(plan: Plan, source: Source) -> Job:
    return build(plan.on(len(source)), source, None, 0, KEY, Quiet())


def flat(tree: object) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("name", EACH)
def test_one_image_moves_every_release_by_at_most_its_sensitivity(name: str) -> None:
    """Built on the data set and on its neighbor, asked for the same release in the same state:
    through feature maps, statistics, views, physical batches and clipping, the sums differ by what
    the noise was scaled for, or less.
    """
    source = images()
    plan = plan_of(METHODS[name], source)
    whole, without = (
        job(plan, each).procedure for each in (source, source.subset(np.arange(N - 1), "train"))
    )
    state, moved = whole.start(), []
    for step in range(min(whole.steps, MOST_STEPS)):
        key = KEY.at(whole.name)
        total, other = whole.measure(state, step, key), without.measure(state, step, key)
        bound = total.sensitivity.add_or_remove
        distance = float(np.linalg.norm(flat(total.value) - flat(other.value)))
        assert distance <= bound * (1 + 1e-4), (
            f"step {step}: one image moves the sum by {distance}, the noise is for {bound}"
        )
        moved.append(distance / bound)
        state = whole.absorb(
            state, step, whole.mechanism(step)(total, KEY.at(f"{whole.name}/{step}"))
        )
    assert max(moved) > 0.1, "control: the image is seen"


@pytest.mark.parametrize("name", METHODS)
def test_every_release_has_the_noise_and_the_rate_that_its_event_says(name: str) -> None:
    """Event, mechanism and plan are three statements of one fact."""
    source = images()
    plan = plan_of(METHODS[name], source)
    procedure = job(plan, source).procedure
    for step in range(procedure.steps):
        event = procedure.event(step)
        gaussian = event.event if isinstance(event, PoissonSampledEvent) else event
        assert gaussian == GaussianEvent(procedure.mechanism(step).multiplier)
    assert Counter(procedure.event(step) for step in range(procedure.steps)) == plan.tally


@pytest.mark.slow
def test_the_sums_of_training_do_not_know_the_held_out_images() -> None:
    source = images()
    plan = plan_of(NETWORK, source)
    others = from_arrays(1 - source.images(np.arange(N)), source.labels, split="test")
    sums = []
    for held_out in (None, source.subset(np.arange(N), "test"), others):
        procedure = build(plan, source, held_out, 0, KEY, Quiet()).procedure
        sums.append(flat(procedure.measure(procedure.start(), 0, KEY).value))
    assert np.array_equal(sums[0], sums[1]) and np.array_equal(sums[0], sums[2])
