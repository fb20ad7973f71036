"""What cannot be parsed is answered by one line that says the way out, without the parser's frame
and its types."""

import pytest
from run_helpers import sfumato

SAYS = {
    "train --data digits --physical-batch-size many": "--physical-batch-size many: give a whole number or auto "
    "(see `sfumato train --help`)",
    "train --data digits --epsilon three": "--epsilon three: give a number or inf (see `sfumato train --help`)",
    "train --data digits --steps 1.5": "--steps 1.5: give a whole number (see `sfumato train --help`)",
    "train --data digits --log loud": "--log loud: choose one of bar, json, quiet (see `sfumato train --help`)",
    "train --data digits --sampler poissson": "sampler='poissson': choose one of poisson, full, truncated, cyclic, fixed, or package.module:Class",
    "train --data": "--data: give a value (see `sfumato train --help`)",
    "train digits": "digits: belongs to no option; options begin with -- and a value follows its own (see `sfumato train --help`)",
    "train --data digits --epslion 3": "there is no option --epslion; did you mean --epsilon? (see `sfumato train --help`)",
    "predict": "predict needs RUN (see `sfumato predict --help`)",
    "calibrate --epsilon 1": "calibrate needs --n, --batch, --steps (see `sfumato calibrate --help`)",
    "fit": "fit needs --features (see `sfumato fit --help`)",
    "data": "name a command: list, info, check, pack, unpack (see `sfumato data --help`)",
    "data infos digits": "there is no command infos; did you mean info? There are list, info, check, pack, unpack (see `sfumato data --help`)",
}


@pytest.mark.parametrize("command", SAYS)
def test_wrong_arguments(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # the line is not wrapped
    outcome = sfumato(*command.split())
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"sfumato: {SAYS[command]}\n")


@pytest.mark.parametrize(
    "given, says",
    [
        ("trian --data digits", "there is no command trian; did you mean train? There are train, "),
        ("", "name a command: train, "),
        ("--foo", "there is no command --foo; there are train, "),
    ],
)
def test_no_command(given: str, says: str) -> None:
    outcome = sfumato(*given.split())
    assert outcome.code == 2 and outcome.err.startswith(f"sfumato: {says}")
    assert outcome.err.endswith(" (see `sfumato --help`)\n") and outcome.err.count("\n") == 1
