"""`sfumato data list`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class List:
    """The named data sets."""

    def __call__(self) -> None:
        from sfumato import data

        for name in data.names():
            facts = data.published(name)
            height, width, colors = facts.shape
            counts = " + ".join(f"{count:,} {split}" for split, count in facts.counts.items())
            print(
                f"{name:<14} {height}x{width}x{colors}  {len(facts.classes):>3} classes  {counts:<28} {facts.title}"
            )
