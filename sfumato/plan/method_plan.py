"""What will happen in a run of `sf.run(method, out=)`: the same file, plan.json, as a `Plan` makes, but of
a method that only its author knows, which need be no classifier of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from sfumato import sampling
from sfumato.core import generators, typed_json
from sfumato.core.tasks import SINGLE, Task
from sfumato.core.typed_json import OrInfinity, Read
from sfumato.plan.plan import Stated
from sfumato.privacy import not_private
from sfumato.privacy.guarantee import Guarantee
from sfumato.privacy.neighbors import Relation
from sfumato.privacy.not_private import NotPrivate
from sfumato.privacy.releases import Release
from sfumato.sampling import Sampler

if TYPE_CHECKING:
    from sfumato.train.loop import Procedure


def _sampler(value: Any, plan: Mapping[str, Any]) -> Sampler | None:
    steps = sum(each["count"] for each in plan["releases"])
    return None if value is None else sampling.from_json(value, plan["n"], steps)


def _clip_norm(value: Any, plan: Mapping[str, Any]) -> float | None:
    found: float | None = None if value is None else typed_json.or_infinite(value)
    return found


@dataclass(frozen=True)
class MethodPlan(Stated):
    """n: private examples. model: the class of the method. sampler, clip_norm: None where the method does
    not say. parameters: numbers that are published. noise: a name of `NOISES`. facts: what the method says
    of an example, name -> shape."""

    classes: ClassVar[tuple[str, ...]] = ()
    task: ClassVar[Task] = SINGLE
    shape: ClassVar[tuple[int, ...]] = ()
    features: ClassVar[int | None] = None
    images_per_unit = None

    name: str
    n: int
    unit: str
    method: str
    model: str
    epsilon: OrInfinity
    delta: float
    relation: Relation
    releases: tuple[Release, ...]
    sampler: Annotated[Sampler | None, Read(_sampler)]
    clip_norm: Annotated[float | None, Read(_clip_norm)]
    parameters: int
    insecure: bool
    noise: str
    noise_rng: str
    public_facts: tuple[str, ...]
    not_covered: tuple[str, ...]
    not_private: NotPrivate | None = None

    @classmethod
    def of(
        cls, name: str, method: "Procedure", guarantee: Guarantee, noise: str, insecure: bool
    ) -> "MethodPlan":
        """name: of the run. Raises ArgumentError for a method that does not say n."""
        import jax

        from sfumato.train.described import examples_of, released, releases_of, shapes

        kind, example = type(method), getattr(method, "example", {})
        published = released(method, jax.eval_shape(lambda: method.start()))
        return cls(
            name=name,
            n=examples_of(method),
            unit=guarantee.unit,
            method=method.name,
            model=f"{kind.__module__}:{kind.__qualname__}",
            epsilon=guarantee.epsilon,
            delta=guarantee.delta,
            relation=guarantee.relation,
            releases=releases_of(method),
            sampler=getattr(method, "sampler", None),
            clip_norm=getattr(method, "contribution", None),
            parameters=sum(leaf.size for leaf in jax.tree.leaves(published)),
            insecure=insecure,
            noise=noise,
            noise_rng=generators.DEFAULT,
            not_private=not_private.told(guarantee.epsilon),
            public_facts=tuple(
                f"the shape of {name} ({shape})" for name, shape in shapes(example).items()
            ),
            not_covered=(
                "What the method knew beforehand. Its program, its initial state and the constants in them were given by its "
                f"author; if they were learned or chosen from these {guarantee.unit}s, that is not covered.",
            ),
        )
