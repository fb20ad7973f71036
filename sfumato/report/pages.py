"""A template of this room, filled: one file of HTML that needs nothing else, not even a network. The
policy in its head forbids scripts and loading."""

import re
from functools import cache
from importlib import resources
from typing import Any

from sfumato.report import words
from sfumato.report.facts import printable

LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "−0123456789")


def page(template: str, values: dict[str, Any]) -> str:
    """`base.html` with the blocks of `template`. Autoescape is on: whatever is not our own SVG or CSS is
    text, and stays text."""
    from markupsafe import Markup

    return _environment().get_template(template).render(css=Markup(_read("style.css")), **values)


@cache
def _environment() -> Any:
    """It keeps the templates that it has compiled."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_read),
    )
    environment.filters.update(
        percent=words.percent,
        count=words.count,
        duration=words.duration,
        number=words.number,
        power=words.power,
        epsilon=words.epsilon,
        printable=printable,
        svg=Markup,
        typeset=typeset,
    )
    return environment


def typeset(text: str) -> Any:
    """Our own sentences, escaped, with powers raised: 10⁻⁵ and e^ε as <sup>, which every font draws
    alike."""
    from markupsafe import Markup, escape

    def raised(match: re.Match[str]) -> str:
        return f"<sup>{match.group().translate(LOWERED)}</sup>"

    return Markup(
        re.sub("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", raised, str(escape(text))).replace("e^ε", "e<sup>ε</sup>")
    )


def _read(name: str) -> str:
    return resources.files("sfumato.report").joinpath(name).read_text(encoding="utf-8")
