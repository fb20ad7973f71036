"""Whatever cannot be run is refused before the first payment."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sfumato
from sfumato.core.keys import SecretKey
from sfumato.train import dpsgd

KEY = SecretKey.from_insecure_seed(3)
ROWS, LABELS = np.ones((12, 4), np.float32), np.arange(12) % 3


def loss(params: jax.Array, example: tuple[jax.Array, jax.Array]) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(example[0] @ params, example[1])


def procedure(optimizer: optax.GradientTransformation) -> sfumato.DPSGD:
    return sfumato.DPSGD(
        loss,
        jnp.zeros((4, 3)),
        fetch=lambda indices, step: (ROWS[indices], LABELS[indices]),
        optimizer=optimizer,
        sampler=sfumato.FullBatch(2, 12),
        noise=sfumato.Gaussian(5.0),
        physical_batch_size=6,
    )


def flattening(learning_rate: float) -> optax.GradientTransformation:
    return optax.GradientTransformation(
        lambda params: (), lambda updates, state, params: (updates[None], state)
    )


OPTIMIZERS = {
    "lbfgs": optax.lbfgs(),
    "needs the loss": optax.contrib.reduce_on_plateau(),
    "another shape": flattening(0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_that_cannot_be_run_is_refused_before_payment(
    name: str, tmp_path: Path
) -> None:
    with sfumato.Ledger.create(tmp_path, delta=1e-3, epsilon_max=50.0) as ledger:
        with pytest.raises(sfumato.ArgumentError, match="optimizer=") as refusal:
            sfumato.run(procedure(OPTIMIZERS[name]), ledger, KEY)
        assert ledger.releases == 0 and "\n" not in str(refusal.value)
        sfumato.run(procedure(optax.adam(0.1)), ledger, KEY)
        assert ledger.releases == 2


def test_a_batch_that_does_not_fit_the_memory_is_refused_before_payment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with sfumato.Ledger.create(tmp_path, delta=1e-3, epsilon_max=50.0) as ledger:
        monkeypatch.setattr(dpsgd, "free_memory", lambda: 100)
        with pytest.raises(sfumato.ArgumentError, match=r"physical_batch_size=6.*fewer"):
            sfumato.run(procedure(optax.sgd(0.1)), ledger, KEY)
        assert ledger.releases == 0
