"""A data set of the Hugging Face hub, fetched over HTTP from a server on this computer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from format_writers import WRITERS, items
from hub_server import NAME

HERE = Path(__file__).parent
PROGRAM = (
    "import sys; from sfumato import data\n"
    "from sfumato.core.errors import SfumatoError\n"
    "try:\n"
    "    train = data.open(sys.argv[1]).train\n"
    "    print(len(train), train.class_names, train.records.read(0).hex())\n"
    "except SfumatoError as error:\n"
    "    print(error)\n"
)


@pytest.mark.slow
def test_a_data_set_is_fetched_once_and_then_there_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    given = items(24, 9)
    server = subprocess.Popen(
        [sys.executable, HERE / "hub_server.py", WRITERS["parquet"].write(tmp_path / "set", given)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    place = f"http://127.0.0.1:{int(server.stdout.readline())}"
    mine = {"HF_ENDPOINT": place, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}

    def told(name: str) -> str:
        asked = [sys.executable, "-c", PROGRAM, f"hf:{name}"]
        return subprocess.run(
            asked, env=os.environ | mine, check=True, timeout=300, capture_output=True, text=True
        ).stdout

    try:
        first, missing = told(NAME), told("owner/none")
    finally:
        server.kill()
        requests = server.communicate()[0]
    assert first.startswith(f"24 ('cat', 'dog', 'owl') {given[0].content.hex()}")
    assert missing.startswith("hf:owner/none: cannot be fetched") and missing.count("\n") == 1
    assert requests.count("GET") >= 4 and "train-00001-of-00002.parquet" in requests
    assert told(NAME) == first
