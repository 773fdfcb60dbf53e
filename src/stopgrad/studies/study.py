"""The parts of a study: arms, and the comparisons between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stopgrad.config import Config
from stopgrad.studies.scales import Scale


@dataclass(frozen=True)
class Arm:
    """One of the things compared: settings on top of a scale's."""

    name: str
    words: str
    settings: Mapping[str, Any]
    """By their unique names; `method` is always among them."""
    epochs: float = 1.0
    """Length, as a factor of the scale's epochs; each length has its own complete schedule."""
    block: int = 0
    """All seeds of a block's arms are run before those of the next."""

    def at_rate(self, factor: float) -> "Arm":
        """The same arm at so many times its learning rate."""
        if factor == 1:
            return self
        settings = {**self.settings, "lr_factor": factor * self.settings.get("lr_factor", 1.0)}
        return replace(
            self, name=f"{self.name}_lr{factor:g}", words=f"{self.words}, {factor:g} x learning rate", settings=settings
        )

    def settings_at(self, scale: Scale) -> dict[str, Any]:
        """What differs from the scale's base; `lr_factor`, `batch_factor` and `ema_power` are not resolved."""
        by_method = scale.of_method.get(self.settings["method"], {})
        return {**by_method, **self.settings, **scale.of_arm.get(self.name, {})}

    def config(self, scale: Scale, seed: int) -> Config:
        """The config of one cell of this arm."""
        own = self.settings_at(scale)
        if "lr_factor" in own:
            own["lr"] = own.get("lr", scale.base.optimization.lr) * own.pop("lr_factor")
        if "batch_factor" in own:
            own["batch_size"] = round(scale.base.training.batch_size * own.pop("batch_factor"))
        if "ema_power" in own:
            own["ema_momentum"] = own.get("ema_momentum", scale.base.objective.ema_momentum) ** own.pop("ema_power")
        steps = scale.base.training.steps
        if steps:
            return scale.base.replace(**own, steps=max(1, round(self.epochs * steps)), seed=seed)
        return scale.base.replace(**own, epochs=max(1, round(self.epochs * scale.epochs)), seed=seed)


@dataclass(frozen=True)
class Comparison:
    """A difference that the study is about: of an arm to its rival."""

    arm: str
    rival: str
    question: str


@dataclass(frozen=True)
class Study:
    """A question, the arms that answer it, and how they are compared."""

    name: str
    title: str
    question: str
    arms: Sequence[Arm]
    comparisons: Sequence[Comparison] = field(default=())
    figures: Sequence[str] = ("knn_top1", "linear_top1")
    """What is compared, the first the one that counts; `projection_std` and the like are of the end, in eval mode."""
    beside: Sequence[str] = ()
    """As `Images.beside`: arms that another study has without it are then cells of their own."""
    scales: Sequence[str] = ()
    """The scales that it is made for; empty: any without weights to start from."""

    def arm(self, name: str) -> Arm:
        """The arm of a name."""
        return next(arm for arm in self.arms if arm.name == name)
