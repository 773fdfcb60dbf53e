"""What to do next: one to three commands for what a run, or an encoder on images, turned out to be."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.recipes import ADAPT, PRETRAINED

MOST = 3
FEW_IMAGES = 2000
"""Training images below which training from scratch gives much less than pretrained weights do (docs/adapt.md)."""
LEAST_SIDE = 48
"""Images seen at fewer pixels gain nothing from weights of photos."""
FELL = 0.03
"""Loss of k-NN accuracy since its best from which on training counts as too long."""
PICKED = "picked.csv"
"""What pages call the list of images that was picked on them; templates/images.js has it too."""
_COLLAPSED = ("collapsed", "partly_collapsed")


@dataclass(frozen=True)
class NextStep:
    """Something to do."""

    why: str
    """A sentence."""
    command: str
    """As typed into a shell."""

    def as_json(self) -> dict[str, str]:
        """One JSON object."""
        return asdict(self)


def steps_of_run(
    run: RunDir, config: Config, state: str, summary: Mapping[str, Any] | None, lines: Sequence[Mapping[str, Any]] = ()
) -> list[NextStep]:  # fmt: skip
    """What to do after a run: at most three steps, none while it goes on.

    Args:
        run, config: the run.
        state: a verdict's, `not_finite`, `stopped` or `failed`.
        summary: what summary.json says; None for a run that has not ended.
        lines: of metrics.jsonl.
    """
    after, summary = _After(run, config), summary or {}
    scores: Mapping[str, float] = summary.get("knn") or {}
    pixels = max((scores[name] for name in ("pixels", "pixels_centred") if name in scores), default=0.0)
    if state == "stopped":
        steps = [after.resumed("Resume from the newest checkpoint.")]
    elif state == "failed":
        steps = [
            after.resumed("Once the cause is mended, resume from the newest checkpoint."),
            after.slower("Where the loss was no longer finite, train at a lower learning rate."),
        ]
    elif state == "not_finite":
        steps = [after.slower("Numbers overflow where the learning rate is too high: train at a lower one.")]
    elif state in _COLLAPSED:
        steps = after.collapse()
    elif state == "worse":
        steps = [
            after.slower("Train at a lower learning rate, and keep the best on the way.", "--keep", "best"),
            after.previewed(),
        ]
    elif state == "kept_start":
        steps = [
            after.embedded("Use the weights as they came: k-NN saw no gain in training."),
            after.trained("A linear probe may see one: keep the end instead, and evaluate both.", "end", keep="last"),
        ]
    elif state == "not_learnt" or (scores and pixels > scores.get("trained", 0.0)):
        steps = after.little(int(summary.get("num_images", 0)))
    elif state in ("learnt", "healthy"):
        steps = [*after.too_long(lines), after.labelled(scores), after.searched(), after.embedded()]
    else:
        steps = []
    return steps[:MOST]


def steps_of_encoder(
    encoder: str, data: str, state: str, *, image_size: int, on_page: bool, labelled: bool = False,
    beats_pixels: bool = True,
) -> list[NextStep]:  # fmt: skip
    """What to do with an encoder that is no run, on images: at most three steps.

    Args:
        encoder, data: as a command takes them.
        state: of its health.
        image_size: the side, in pixels, that it sees.
        on_page: whether the reader is on the page of the two.
        labelled: whether the images have labels.
        beats_pixels: whether its k-NN accuracy is above that of raw pixels, where that was measured.
    """
    adapted = [_adapted(data, "runs/adapted")] if image_size >= LEAST_SIDE else []
    if state != "healthy":
        known = _line("report", f"timm:{PRETRAINED}", data, "--out", "pretrained.html")
        return [NextStep("Compare with weights that are known to work.", known), *adapted]
    if not on_page:
        why = "Look at map, neighbours and near-duplicates."
        judged = NextStep(why, _line("report", encoder, data, "--out", "page.html"))
    elif labelled:
        judged = NextStep(
            "Measure a linear classifier on the features.", _line("evaluate", "linear", encoder, "--train", data)
        )
    else:
        judged = _few_labels(encoder)
    use = NextStep("Write the features into a file.", _line("embed", encoder, data, "--out", "features.parquet"))
    return [judged, *adapted, use] if beats_pixels else [*adapted, judged, use]


class _After:
    """Commands about a run, with its own paths."""

    def __init__(self, run: RunDir, config: Config) -> None:
        self.run, self.config = run, config
        # Images that were in memory have to be named.
        self.named = ["DATA"] if run.images_were_in_memory else []

    def _pretrain(self, *more: Any) -> str:
        return _line("pretrain", *self.named, "--config", self.run.config_file, *more)

    def trained(self, why: str, suffix: str, *flags: str, **settings: Any) -> NextStep:
        """Train again, with other settings, into a folder beside the run's."""
        given = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", f"{value}")]
        return NextStep(why, self._pretrain(*flags, *given, "--out", f"{self.run.path}-{suffix}"))

    def resumed(self, why: str) -> NextStep:
        return NextStep(why, self._pretrain("--out", self.run.path, "--resume"))

    def slower(self, why: str, *flags: str) -> NextStep:
        return self.trained(why, "slower", *flags, lr=f"{self.config.optimization.lr / 4:g}")

    def longer(self) -> NextStep:
        t = self.config.training
        length = {"steps": 4 * t.steps} if t.steps else {"epochs": 4 * t.epochs}
        return self.trained("Train four times as long.", "longer", **length)

    def previewed(self) -> NextStep:
        why = "See whether the views still show what tells these images apart."
        data = self.named or ([self.config.data.path] if self.config.data.path else [])
        out = f"{self.run.path}-views.png"
        return NextStep(why, _line("preview", *data, "--config", self.run.config_file, "--out", out))

    def collapse(self) -> list[NextStep]:
        c, steps = self.config, []
        if c.objective.method in ("simsiam", "byol"):
            if not c.network.predictor:
                steps.append(self.trained("A predictor works against collapse.", "predictor", "--predictor"))
            elif c.objective.method == "simsiam":
                steps.append(self.trained("Targets by EMA work against collapse.", "byol", method="byol"))
            elif c.objective.guide != "nearest_views":
                steps.append(
                    self.trained("A guide works against collapse.", "guided", guide="nearest_views")
                )  # fmt: skip
        return [*steps, self.slower("So does a lower learning rate." if steps else "Train at a lower learning rate."),
                self.previewed()]  # fmt: skip

    def little(self, num_images: int) -> list[NextStep]:
        c = self.config
        few = c.network.init == "random" and num_images < FEW_IMAGES and c.data.image_size >= LEAST_SIDE
        data = (self.named or [c.data.path])[0]
        return [*([_adapted(data, f"{self.run.path}-adapted", num_images)] if few else []), self.longer(),
                self.previewed()]  # fmt: skip

    def too_long(self, lines: Sequence[Mapping[str, Any]]) -> list[NextStep]:
        """A shorter training, where k-NN was better on the way."""
        measured = [line for line in lines if isinstance(line.get("knn_top1"), float)]
        if not measured or self.config.training.keep == "best":
            return []
        best, last = max(measured, key=lambda line: line["knn_top1"]), measured[-1]
        if not best["knn_top1"] - last["knn_top1"] >= FELL:
            return []
        why = (
            f"k-NN was {best['knn_top1']:.1%} at step {best['step']:,} and {last['knn_top1']:.1%} at the end: keep the "
            "best."
        )
        return [self.trained(why, "best", keep="best")]

    def labelled(self, scores: Mapping[str, float]) -> NextStep:
        if not scores:
            return _few_labels(self.run.path)
        more = ["--train", *self.named] if self.named else []
        return NextStep(
            "Measure a linear classifier on the features.", _line("evaluate", "linear", self.run.path, *more)
        )

    def searched(self) -> NextStep:
        more = ["--data", *self.named] if self.named else []
        page = f"{self.run.path}-duplicates.html"
        return NextStep(
            "Look for the same image twice.",
            _line("search", self.run.path, *more, "--split", "all", "--duplicates", "0.995", "--page", page),
        )

    def embedded(self, why: str = "Write the features into a file.") -> NextStep:
        return NextStep(why, _line("embed", self.run.path, *self.named, "--out", f"{self.run.path}-features.parquet"))


def _few_labels(encoder: str | Path) -> NextStep:
    return NextStep(
        "Only labels tell what features are worth: label some images on the page, and save the list.",
        _line("evaluate", "few-label", encoder, "--train", PICKED, "--labels-per-class", "5"),
    )


def _adapted(data: str, out: str, num_images: int = 0) -> NextStep:
    why = "Adapt pretrained weights to these images."
    if num_images:
        why = f"{num_images:,} images are few to train on from scratch: adapt pretrained weights."
    return NextStep(why, _line("pretrain", data, "--recipe", ADAPT, "--out", out))


def _line(*words: str | Path) -> str:
    return shlex.join(["stopgrad", *map(str, words)])
