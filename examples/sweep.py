"""Accuracy over epsilon for several linear heads on the same features: a table, sweep.png and sweep.html.
`python examples/sweep.py` (a minute). The files are for the owner of the images: they hold the accuracy
without privacy, which no epsilon covers."""

from pathlib import Path

from sfumato.cli import main

if not Path("feats").exists():
    main(["features", "--data", "digits", "--model", "scattering", "--out", "feats"])
main(
    ["sweep", "--features", "feats", "--epsilon", "1,3,8", "--method", "ls,means", "--out", "curve"]
)
