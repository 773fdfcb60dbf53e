"""Linear evaluation: a linear classifier on frozen features, fitted to its optimum."""

from pathlib import Path

from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.features import Features
from stopgrad.errors import ConfigError
from stopgrad.evaluate.shared.classify import Description, Judged, classify, open_task
from stopgrad.evaluate.shared.outcome import Outcome, score
from stopgrad.evaluate.shared.prepare import solver_device
from stopgrad.evaluate.shared.probe import choice_words, fit_details, fit_probe
from stopgrad.evaluate.shared.splits import Images
from stopgrad.metrics.logistic import standard_of
from stopgrad.reporter import QuietReporter, Reporter

HOLDOUT = 0.2


def evaluate_linear(
    encoder: str | Path | Encoder, train: Images | None = None, test: Images | None = None, *, l2: float | None = None,
    baselines: bool = True, batch_size: int = 0, device: str = "auto", precision: str | None = None, seed: int = 0,
    reporter: Reporter | None = None,
) -> Outcome:  # fmt: skip
    """Fit multinomial logistic regression to the frozen features of the training images; evaluate on the test images.

    Features are standardised by the training images. The L2 penalty is chosen on a fifth of each class of the training
    images, then the classifier is fitted to all of them, by full-batch L-BFGS: there is no learning rate to choose.

    Args:
        encoder: an encoder, or what `load_encoder` takes; in a run folder the outcome is saved.
        train: labelled images (a path or an `ImageSource`); None: those that the run was trained on.
        test: labelled images; None: the test images of `train`, or where it has none, a fifth of each class.
        l2: the penalty beside the sum of the log-losses, 1 / C of scikit-learn, above 0; None: it is chosen.
        baselines: whether to measure an untrained network and raw pixels too, each with a penalty of its own.
        batch_size: images a forward pass; 0: chosen for the device.
        device: as the setting `device`.
        precision: what the networks compute in, as the setting `precision`; None: as the run did, else `auto`.
        seed: of what is held out, and of the untrained network's weights.
        reporter: told of progress, and of a fit that did not converge.

    Raises:
        ConfigError: a penalty that is not above 0, or no such precision.
        DataError: labels missing, one class only, or classes that differ between training and test images.
        CheckpointError: no encoder there.

    Source of the protocol: Kornblith, Shlens and Le (arXiv 1805.08974), appendix A.4; Chen et al. (arXiv 2002.05709),
    appendix B.8: L-BFGS without augmentation, the penalty from a range of logarithmic steps.
    """
    if l2 is not None and not l2 > 0:
        raise ConfigError(f"l2 = {l2}: must be above 0.")
    reporter = reporter or QuietReporter()
    task = open_task(
        encoder, train, test, holdout=HOLDOUT, baselines=baselines, batch_size=batch_size, device=device,
        precision=precision, seed=seed, reporter=reporter,
    )  # fmt: skip
    used: dict[str, float] = {}

    def judge(variant: str, bank: Features, queries: Features | None) -> Judged:
        assert queries is not None
        place = solver_device(device, bank.vectors)
        vectors, labels = bank.vectors.to(place), bank.labels.to(place)
        probe, choice = fit_probe(
            vectors, labels, standard_of(vectors), l2=l2, holdout=HOLDOUT, seed=seed,
            progress=lambda done, total: reporter.progress("choosing the L2 penalty", done, total),
        )  # fmt: skip
        chosen = l2 if choice is None else choice.l2
        assert chosen is not None
        # The first is the trained network's, whose figure the protocol stands beside.
        used.setdefault("l2", chosen)
        used.setdefault("converged", probe.fit.converged)
        if not probe.fit.converged:
            reporter.warn(
                f"the linear classifier ({variant}, L2 {chosen:.3g}) has not converged in {probe.fit.num_iterations} "
                f"iterations: its largest derivative is {probe.fit.gradient:.1g}."
            )
        predicted = probe.predict(queries.vectors.to(place)).cpu()
        return Judged(score(predicted, queries.labels), predicted, {"fit": fit_details(probe, choice, chosen)})

    def describe(num_train: int, num_tested: int) -> Description:
        how = "1 / C" if l2 is not None else (
            f"1 / C; chosen from {choice_words()} on {HOLDOUT:.0%} of each class of the training images, then fitted "
            "to all"
        )  # fmt: skip

        def words(penalty: str, came_out: str) -> str:
            return (
                f"linear classifier on frozen features, standardised by the training images; L2{penalty} ({how}); "
                f"L-BFGS{came_out}; {num_train:,} training images ({task.splits.train_name}), judged by "
                f"{num_tested:,} ({task.splits.test_name})"
            )

        penalty = f" {used['l2']:.3g}"
        return Description(
            words(penalty, ", converged" if used["converged"] else ", NOT converged"),
            {"l2": used["l2"], "l2_chosen": l2 is None, "holdout": HOLDOUT, "converged": bool(used["converged"])},
            words("" if l2 is None else penalty, ""),
        )

    return classify(task, "linear", judge, describe, centred=False)
