"""Benchmark tables go into RESULTS.md, one section per script, each with the machine it ran on."""

import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
_HEADER = "# Results\n\nEvery section is written by the script it names. Times depend on the machine; ratios less so.\n"


def machine() -> str:
    """Processor, cores, memory and versions, in a line."""
    cpuinfo = Path("/proc/cpuinfo")
    name = platform.processor() or platform.machine()
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        name = found[1].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB; Python {platform.python_version()}, "
        f"jax {version('jax')}, dp-accounting {version('dp-accounting')}; {time.strftime('%Y-%m-%d')}"
    )


def write_section(title: str, body: str) -> None:
    """Put `body` under `## title`, replacing what was there."""
    text = RESULTS.read_text() if RESULTS.exists() else _HEADER
    section = f"## {title}\n\n{body.strip()}\n\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.M | re.S)
    text = (
        pattern.sub(lambda _: section, text)
        if pattern.search(text)
        else text.rstrip() + "\n\n" + section
    )
    RESULTS.write_text(text.rstrip() + "\n")
