"""`sfumato features`."""

from dataclasses import dataclass

from sfumato.plan.config import FeaturesConfig


@dataclass(frozen=True)
class Features(FeaturesConfig):
    """Compute fixed features of a data set once, into a directory that `sfumato fit` reads. As
    private as the images."""

    def __call__(self) -> None:
        from sfumato.runs.store import PRIVATE, shares_left, write_store

        store = write_store(self)
        left = shares_left(self)
        rows = ", ".join(f"{count:,} {split}" for split, count in store.counts.items())
        print(
            f"features  {self.out}: {rows} rows of {store.features:,} numbers ({store.dtype}), model {store.model}"
        )
        if left:
            print(f"shares    {', '.join(map(str, left))} of this store are not complete yet")
        print(f"private   {PRIVATE}")
