"""The shipped loop, run for nobody's eyes: an audit trains again and again and publishes none of
it."""

from pathlib import Path
from tempfile import TemporaryDirectory

from sfumato.audit.result import Claim
from sfumato.core.keys import SecretKey
from sfumato.privacy.ledger import Ledger
from sfumato.train import loop
from sfumato.train.loop import Procedure, State


def run_alone(procedure: Procedure, claim: Claim, key: SecretKey) -> State:
    """The last state. The ledger is real, refuses what passes the claim, and is thrown away
    afterwards."""
    with TemporaryDirectory() as folder:
        budget = claim.epsilon * (1 + 1e-9)
        with Ledger.create(
            Path(folder), delta=claim.delta, epsilon_max=budget, relation=claim.relation
        ) as ledger:
            return loop.run(procedure, ledger, key)
