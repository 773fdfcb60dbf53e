"""How a step's batch is shared out: among processes, in groups that see nothing of each other, and in parts."""

from stopgrad.settings import GROUPED_METHODS, SIAMESE_METHODS, Objective, Training


def num_groups(t: Training, processes: int, statistics: str) -> int:
    """Groups of a batch whose BatchNorm, partners and negatives are their own; `statistics` is `global` or `local`."""
    return 1 if statistics == "global" else max(processes, t.batch_groups)


def sharing_problem(o: Objective, t: Training) -> str | None:
    """Why a batch cannot be shared out among processes, groups and parts, in words; None if it can."""
    if t.accumulate > 1 and o.method not in SIAMESE_METHODS:
        return (
            f"accumulate = {t.accumulate} with method = {o.method!r}: only {' and '.join(SIAMESE_METHODS)} train on "
            "parts of a batch, as their losses are of one image each once the sources are chosen. Use accumulate = 1."
        )
    if t.accumulate > 1 and o.guide_keep < 1:
        return (
            f"accumulate = {t.accumulate} with guide_keep = {o.guide_keep:g}, which may leave a part without images: "
            "use one or the other."
        )
    if t.batch_size < t.devices:
        return f"batch_size = {t.batch_size} is less than an image for each of devices = {t.devices}."
    if t.devices and t.batch_size % t.devices and t.batch_statistics != "global":
        return (
            f"batch_size = {t.batch_size} does not divide among devices = {t.devices}: use a multiple of it, or "
            "batch_statistics = 'global', which takes unequal shares."
        )
    return _grouping_problem(o, t)


def _grouping_problem(o: Objective, t: Training) -> str | None:
    num = t.batch_groups
    if num > 1 and o.method not in GROUPED_METHODS:
        return (
            f"batch_groups = {num} with method = {o.method!r}: only {', '.join(GROUPED_METHODS)} train in groups, as "
            "they remember nothing of earlier batches, which would be another in each process. Use batch_groups = 0."
        )
    if num > 1 and t.batch_statistics == "global":
        return (
            f"batch_groups = {num} with batch_statistics = 'global', which makes one group of the whole batch: use one "
            "or the other."
        )
    if num and t.batch_size % num:
        return f"batch_size = {t.batch_size} does not divide among batch_groups = {num}: use a multiple of it."
    if num and t.devices and num % t.devices and t.batch_statistics != "global":
        return (
            f"batch_groups = {num} does not divide among devices = {t.devices}: use a multiple of it, or as many "
            "devices as divide it."
        )
    return None
