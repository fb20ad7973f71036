"""What a label is, and all that follows from it for a loss: one class of several, or several findings
of which each is there, is not there, or is unknown.

Let s be the scores of an example, one for each class or finding, of L.

Classes. y is one of them; p = softmax(s); the loss is -log p_y, its gradient by s is e = p - e_y. At
s = 0 that has norm sqrt(1 - 1/L).

Findings. y in {0, 1, unknown}^L; p_l = 1 / (1 + exp(-s_l)); the loss is the sum of -log P(y_l) over
the findings that are known, so its gradient by s is e_l = p_l - y_l where y_l is known, and 0 where it
is not: an unknown finding adds nothing to any sum. |e_l| < 1, so |e| < sqrt(k) for k that are known,
and at s = 0 it is sqrt(k) / 2 <= sqrt(L) / 2.

What a row can do. A linear head has scores W^T z, so one row's gradient is z e^T: it enters all L
columns of W at once, and its norm is |z| |e|, all columns together. Clipping acts on that one number,
so a sum of clipped gradients has sensitivity C, not C for each column. The Hessian of findings is
p_l (1 - p_l) z z^T in column l where y_l is known. Its mean over the L columns, relative to that at W =
0 with all known, is omega z z^T with omega = (4/L) sum of p_l (1 - p_l) over the known, between 0 and 1,
so |omega z z^T| <= |z|^2, as for classes (`solve/quadratic.py`).

One finding is a problem of two classes whose score is the difference of theirs. A gradient step that
moves the scores of two classes by r and -r moves their difference by 2 r, so learning rates for findings
are twice those for two classes.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sfumato.core.errors import ArgumentError
from sfumato.core.late import Late

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jaxtyping import Float, Int

    Labels = Int[np.ndarray, "n ..."]
    Answers = Int[np.ndarray, "..."]
    Rows = Float[np.ndarray, "n c"]
    Generator = np.random.Generator
else:  # imported where there are labels, so that words and rules can be had without them
    jax, jnp, np, optax = map(Late, ("jax", "jax.numpy", "numpy", "optax"))
    Labels = Answers = Rows = Generator = Any

UNKNOWN = -1
"""In a matrix of findings: not known, so it counts as nothing."""


class Task:
    """Kinds of labels; there are `SINGLE` and `MULTI`. Functions of scores work on arrays of JAX.

    name: in our files. one, many: what a column of the scores is. tables: what an evaluation counts.
    exclusive: whether an example is in
    just one. intercept: what stands behind a row whose head has no intercept of its own; 0 for none.
    """

    name: ClassVar[str]
    one: ClassVar[str]
    many: ClassVar[str]
    tables: ClassVar[str]
    exclusive: ClassVar[bool]
    intercept: ClassVar[float] = 0.0

    def to_json(self) -> str:
        return self.name

    @classmethod
    def from_json(cls, value: Any) -> "Task":
        """Raises ArgumentError for a kind that this version does not know."""
        found = next((each for each in (SINGLE, MULTI) if each.name == value), None)
        if found is None:
            raise ArgumentError(
                "task", value, "not known to this version; use the one that wrote it"
            )
        return found

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        return Task.from_json, (self.name,)

    def need_classes(self, argument: str, value: Any) -> None:
        """Raises ArgumentError where labels are findings: of what is asked for only classes have one."""

    # -- scores, inside of programs

    def chances(self, scores: Any) -> Any:
        """Probabilities."""
        raise NotImplementedError

    def flat_chance(self, count: int) -> float:
        """The probability of each of `count` at scores 0."""
        raise NotImplementedError

    def loss(self, scores: Any, label: Any) -> Any:
        """Of each row of scores."""
        raise NotImplementedError

    def error(self, chances: Any, labels: Any) -> Any:
        """e above, of each row; chances may be one row for all."""
        raise NotImplementedError

    def curvature(self, chances: Any, labels: Any) -> Any:
        """omega of each row, between 0 and 1: a column."""
        raise NotImplementedError

    def centered(self, slope: Any) -> Any:
        """A released gradient without what is noise alone."""
        return slope

    # -- public numbers

    def flat_norm(self, count: int) -> float:
        """The largest |e| at scores 0."""
        raise NotImplementedError

    def ruled_as(self, count: int) -> tuple[int, float]:
        """(classes whose learning rates suit, what these are multiplied by)."""
        raise NotImplementedError

    def newton_rate(self, count: int) -> float:
        """The learning rate of a Newton step at scores 0 for the Gram matrix in place of the Hessian."""
        classes, factor = self.ruled_as(count)
        return factor * classes

    def crowd(self, count: int) -> float:
        """How many classes have as much noise beside the signal of one of them."""
        raise NotImplementedError

    # -- labels and answers

    def fits(self, labels: Labels, count: int) -> bool:
        """Whether these are labels of `count` classes or findings."""
        raise NotImplementedError

    def of_group(self, labels: Labels) -> Any:
        """The label of several examples that count as one."""
        raise NotImplementedError

    def random(self, stream: Generator, n: int, count: int) -> Answers:
        """Labels of nobody."""
        raise NotImplementedError

    def wrong(self, labels: Labels, count: int, stream: Generator) -> Answers:
        """Other labels for the same examples."""
        raise NotImplementedError

    def log_odds(self, probabilities: Rows, labels: Labels) -> Any:
        """How sure rows of probabilities are of the labels: log(p / (1 - p))."""
        raise NotImplementedError

    def hardest(self, loss: Any, count: int) -> Any:
        """The label of the largest loss. loss: label -> a number."""
        raise NotImplementedError

    def scores(self, probabilities: Rows) -> Rows:
        """Scores that have these probabilities."""
        raise NotImplementedError

    def probabilities(self, scores: Rows) -> Rows:
        """`chances` in double precision, on the host."""
        raise NotImplementedError

    def called(self, scores: Rows) -> Answers:
        """What rows of scores are called: the class of the largest, or each finding that is likelier
        than not."""
        raise NotImplementedError

    def decided(self, probabilities: Rows) -> Answers:
        """The same, of probabilities."""
        raise NotImplementedError

    def count(self, labels: Labels, called: Answers, count: int) -> Answers:
        """Confusion: counts of (true, called), of the classes, or for each finding by itself."""
        raise NotImplementedError

    def answers(self, names: Any, called: Answers) -> Answers:
        """What `predict` returns. names: of the classes or findings, in order."""
        raise NotImplementedError

    def as_json(self, names: Sequence[str], called: Any) -> dict[str, Any]:
        """One answer for programs."""
        raise NotImplementedError

    def words(self, names: Sequence[str], called: Any) -> str:
        """One answer for people."""
        raise NotImplementedError

    def sure(self, probabilities: Rows, called: Any) -> str:
        """The probabilities of what was answered, or, where that is nothing, the largest."""
        there = (
            probabilities[np.flatnonzero(called)] if np.ndim(called) else probabilities[[called]]
        )
        return ", ".join(f"{p:.3f}" for p in (there if len(there) else [probabilities.max()]))


class _Classes(Task):
    name = "single-label"
    one, many = "class", "classes"
    tables = "the confusion matrix"
    exclusive = True

    def chances(self, scores: Any) -> Any:
        return jax.nn.softmax(scores)

    def flat_chance(self, count: int) -> float:
        return 1 / count

    def loss(self, scores: Any, label: Any) -> Any:
        labels = jnp.broadcast_to(label, scores.shape[:-1])
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels)

    def error(self, chances: Any, labels: Any) -> Any:
        return chances - jax.nn.one_hot(labels, chances.shape[1])

    def curvature(self, chances: Any, labels: Any) -> Any:
        flat = 1 - 1 / chances.shape[1]
        return jnp.clip((1 - (chances * chances).sum(1, keepdims=True)) / flat, 0.0, 1.0)

    def centered(self, slope: Any) -> Any:
        """Without its mean over classes: the true gradient's is zero."""
        return slope - slope.mean(1, keepdims=True)

    def flat_norm(self, count: int) -> float:
        return math.sqrt(1 - 1 / count)

    def ruled_as(self, count: int) -> tuple[int, float]:
        return count, 1.0

    def crowd(self, count: int) -> float:
        return count

    def fits(self, labels: Labels, count: int) -> bool:
        return not len(labels) or bool(0 <= labels.min() <= labels.max() < count)

    def of_group(self, labels: Labels) -> Any:
        """The most frequent class, the first of equals."""
        return np.bincount(labels).argmax()

    def random(self, stream: Generator, n: int, count: int) -> Answers:
        return stream.integers(count, size=n).astype(np.int32)

    def wrong(self, labels: Labels, count: int, stream: Generator) -> Answers:
        """Any class but the right one."""
        return ((labels + stream.integers(1, count, len(labels))) % count).astype(np.int32)

    def log_odds(self, probabilities: Rows, labels: Labels) -> Any:
        return _log_odds(probabilities[np.arange(len(labels)), labels])

    def hardest(self, loss: Any, count: int) -> Any:
        return np.int32(np.argmax([loss(np.int32(label)) for label in range(count)]))

    def scores(self, probabilities: Rows) -> Rows:
        found = np.maximum(probabilities, np.finfo(np.float32).tiny)
        return np.asarray(np.log(found, out=found))

    def probabilities(self, scores: Rows) -> Rows:
        found = np.asarray(scores, np.float64)
        grown = np.exp(found - found.max(1, keepdims=True))
        return np.asarray(grown / grown.sum(1, keepdims=True))

    def called(self, scores: Rows) -> Answers:
        return np.asarray(scores.argmax(1))

    def decided(self, probabilities: Rows) -> Answers:
        return self.called(probabilities)

    def count(self, labels: Labels, called: Answers, count: int) -> Answers:
        counts = np.zeros((count, count), np.int64)
        np.add.at(counts, (labels, called), 1)
        return counts

    def answers(self, names: Any, called: Answers) -> Answers:
        return np.asarray(names)[called]

    def as_json(self, names: Sequence[str], called: Any) -> dict[str, Any]:
        return {"class": names[int(called)]}

    def words(self, names: Sequence[str], called: Any) -> str:
        return names[int(called)]


class _Findings(Task):
    name = "multi-label"
    one, many = "finding", "findings"
    tables = "the areas and shares of each finding"
    exclusive = False
    intercept = 0.1

    def need_classes(self, argument: str, value: Any) -> None:
        raise ArgumentError(
            argument,
            value,
            "is for images of one class each; these labels are several findings an image",
        )

    def chances(self, scores: Any) -> Any:
        return jax.nn.sigmoid(scores)

    def flat_chance(self, count: int) -> float:
        return 0.5

    def loss(self, scores: Any, label: Any) -> Any:
        labels = jnp.broadcast_to(label, scores.shape)
        each = optax.sigmoid_binary_cross_entropy(scores, labels.astype(scores.dtype))
        return jnp.where(labels >= 0, each, 0.0).sum(-1)

    def error(self, chances: Any, labels: Any) -> Any:
        return jnp.where(labels >= 0, chances - labels, 0.0)

    def curvature(self, chances: Any, labels: Any) -> Any:
        each = jnp.where(labels >= 0, 4 * chances * (1 - chances), 0.0)
        return jnp.clip(each.mean(1, keepdims=True), 0.0, 1.0)

    def flat_norm(self, count: int) -> float:
        return math.sqrt(count) / 2

    def ruled_as(self, count: int) -> tuple[int, float]:
        return 2, 2.0

    def crowd(self, count: int) -> float:
        """|e| at 0 is sqrt(L) times that of one finding, which is one of two classes."""
        return 2 * math.sqrt(count)

    def fits(self, labels: Labels, count: int) -> bool:
        return labels.shape[1] == count and bool(((labels >= UNKNOWN) & (labels <= 1)).all())

    def of_group(self, labels: Labels) -> Any:
        """A finding is there if half of those that know say so."""
        known = labels != UNKNOWN
        there = 2 * (labels == 1).sum(0) >= known.sum(0)
        return np.where(known.any(0), there, UNKNOWN)

    def random(self, stream: Generator, n: int, count: int) -> Answers:
        return stream.integers(2, size=(n, count)).astype(np.int32)

    def wrong(self, labels: Labels, count: int, stream: Generator) -> Answers:
        """All that is known the other way round."""
        return np.where(labels == UNKNOWN, UNKNOWN, 1 - labels).astype(np.int32)

    def log_odds(self, probabilities: Rows, labels: Labels) -> Any:
        """The sum over the findings that are known."""
        own = _log_odds(np.where(labels == 1, probabilities, 1 - probabilities))
        return np.where(labels == UNKNOWN, 0.0, own).sum(1)

    def hardest(self, loss: Any, count: int) -> Any:
        """Each finding by itself, as the loss is a sum over them."""
        alone = np.where(np.eye(count, dtype=bool), 1, UNKNOWN).astype(np.int32)
        there = [loss(row) > loss(np.where(row == 1, 0, row).astype(np.int32)) for row in alone]
        return np.array(there, np.int32)

    def scores(self, probabilities: Rows) -> Rows:
        p = np.asarray(probabilities, np.float64).clip(1e-12, 1 - 1e-12)
        return np.log(p) - np.log1p(-p)

    def probabilities(self, scores: Rows) -> Rows:
        return np.asarray(1 / (1 + np.exp(-np.asarray(scores, np.float64).clip(-700, 700))))

    def called(self, scores: Rows) -> Answers:
        return (np.asarray(scores) >= 0).astype(np.int64)

    def decided(self, probabilities: Rows) -> Answers:
        return (np.asarray(probabilities) >= 0.5).astype(np.int64)

    def count(self, labels: Labels, called: Answers, count: int) -> Answers:
        """L x 2 x 2: of what is known."""
        both = [[(labels == true) & (called == said) for said in (0, 1)] for true in (0, 1)]
        return np.array(both).sum(2).transpose(2, 0, 1).astype(np.int64)

    def answers(self, names: Any, called: Answers) -> Answers:
        return called

    def as_json(self, names: Sequence[str], called: Any) -> dict[str, Any]:
        return {"findings": self._there(names, called)}

    def words(self, names: Sequence[str], called: Any) -> str:
        return ", ".join(self._there(names, called)) or "none"

    def _there(self, names: Sequence[str], called: Any) -> list[str]:
        return [name for name, there in zip(names, called, strict=True) if there]


def _log_odds(probabilities: Rows) -> Any:
    own = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-7)
    return np.log(own / (1 - own))


SINGLE: Task = _Classes()
MULTI: Task = _Findings()


def task_of(labels: Labels) -> Task:
    """Of class numbers, a vector, or of a matrix of findings."""
    return MULTI if labels.ndim == 2 else SINGLE
