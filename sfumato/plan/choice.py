"""`--method auto` and what goes with what: the method, the network and the part of it that is
trained."""

from sfumato.core.errors import ArgumentError
from sfumato.features import by_name
from sfumato.networks import trainable
from sfumato.plan.config import MethodConfig
from sfumato.plan.methods import METHODS, ROWS
from sfumato.plan.public_facts import PublicRows, PublicWeights
from sfumato.plan.public_features import describe_public


def resolve(
    config: MethodConfig, n: int, shape: tuple[int, int, int], weights: PublicWeights | None = None
) -> tuple[str, str, str | None]:
    """`auto` -> (method, model, which part of the network is trained, None for all or for a head on
    fixed features), for n training images of that shape.

    Without public weights, fixed features and DP-FC; a network name asks for DP-SGD.
    """
    if weights is not None:
        return _resolve_weights(config, weights)
    model = config.model if config.model == "auto" else by_name.check(config.model)
    method = config.method
    if model == by_name.GIVEN:
        return _for_rows(method), model, None
    if method == "auto":
        method = "dp-fc" if model == "auto" or by_name.is_features(model) else "dp-sgd"
    needs = METHODS[method].needs
    if model == "auto":
        model = METHODS[method].default_model(n, shape)
    if by_name.is_features(model):
        _refuse_views(config, "give a network, such as --model cnn", ("augment",))
    if needs == "rows" and not by_name.is_features(model):
        raise ArgumentError(
            "model",
            model,
            f"{method} needs --weights, or fixed features: {', '.join(by_name.FEATURES)}",
        )
    if needs == "groups" and not (by_name.is_features(model) and model != "scatternet"):
        fit = ", ".join(name for name in by_name.FEATURES if name != "scatternet")
        raise ArgumentError("model", model, f"method {method} needs fixed features: {fit}")
    return method, model, None


def _resolve_weights(config: MethodConfig, weights: PublicWeights) -> tuple[str, str, str | None]:
    """A head on frozen features by a linear method, or more than the head by DP-SGD."""
    mode, method = config.train or "head", config.method
    kind, _ = trainable.parse(mode)
    if method != "auto" and METHODS[method].needs == "groups":
        raise ArgumentError(
            "method", method, "is for features in groups; with public weights take fc"
        )
    if kind == "head":
        _refuse_views(config, "train last:1", ("views", "augment"))
        return method, weights.model, None
    if method != "auto" and METHODS[method].needs != "network":
        raise ArgumentError(
            "method", method, f"trains a head on fixed features; with --train {mode} take dp-sgd"
        )
    return "dp-sgd", weights.model, mode


def _refuse_views(config: MethodConfig, way_out: str, flags: tuple[str, ...]) -> None:
    for name in flags:
        if (value := getattr(config, name)) is not None:
            raise ArgumentError(
                name, value, f"features are computed once per image; leave it out, or {way_out}"
            )


def public_rows(config: MethodConfig, features: int | None, n: int, mu: float) -> PublicRows | None:
    """What is known of the public rows, if there are any."""
    if config.public is None or features is None:
        return None
    return describe_public(config.public, features, n, mu, config.rooted)


def _for_rows(method: str) -> str:
    if method != "auto" and METHODS[method].needs != "rows":
        raise ArgumentError(
            "method", method, f"for feature rows choose auto or one of {', '.join(ROWS)}"
        )
    return method
