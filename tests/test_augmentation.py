"""Augmentation must not tell who is in the training set."""

import numpy as np

from sfumato.core.keys import SecretKey
from sfumato.data.source import DataInfo, from_arrays
from sfumato.plan.config import DataConfig, MethodConfig, TrainConfig
from sfumato.plan.making import make_plan
from sfumato.runs.jobs import build
from sfumato.runs.progress import Quiet


def first_views(key: SecretKey, seed: int) -> np.ndarray:
    images = np.random.default_rng(0).random((40, 8, 8, 3), np.float32)
    source = from_arrays(images, np.arange(40) % 2)
    method = MethodConfig(
        "dp-sgd", "cnn", views=2, steps=2, batch=40
    )  # all: nothing to calibrate for sampling
    info = DataInfo("arrays", "memory", source.class_names, source.shape, {"train": len(source)})
    plan = make_plan(TrainConfig(DataConfig("arrays"), method=method), info)
    (_, draws), _ = build(plan, source, None, seed, key, Quiet()).procedure.fetch(np.arange(40), 0)
    return draws[0]


def test_views_are_a_function_of_the_secret_key_and_not_of_the_public_seed() -> None:
    """Views go by position: from a public seed, removing one image would visibly change those of
    all later ones."""
    one, other = SecretKey.from_insecure_seed(1), SecretKey.from_insecure_seed(2)
    assert np.array_equal(first_views(one, 0), first_views(one, 5))
    assert not np.array_equal(first_views(one, 0), first_views(other, 0))
