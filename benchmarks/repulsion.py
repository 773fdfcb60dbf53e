"""How often a step takes a view away from another image's: at random, guided, and for the most decided half.

    python benchmarks/repulsion.py CIFAR10 [--seed 50] > benchmarks/results/repulsion.json

A source s that is pulled toward its target t moves along t - (t.s) s (all of unit length), and so its cosine with
another image's view n changes by t.n - (t.s)(s.n). Below zero, the step repels. Measured on batches of a run of the
studies' small scale, guided and without a predictor: BYOL, so t and n come from the moving average. n is the partner's
view nearest to s.
"""

import argparse
import json
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.artifacts.environment import environment
from stopgrad.config import Config
from stopgrad.distributed.rank import Rank
from stopgrad.loader.loader import Loader
from stopgrad.objective.decided import decidedness, distances_to_partner
from stopgrad.objective.guided import choose_partners
from stopgrad.objective.guides import nearest_views, random_views
from stopgrad.reporter import SilentReporter
from stopgrad.studies.cells import Images
from stopgrad.studies.scales import scale_of
from stopgrad.studies.worker import splits_of
from stopgrad.train.build import build_method, load_stores
from stopgrad.train.optim import build_optimizer, lr_factor, peak_lr, set_lr

NUM_STEPS, MEASURED = 160, (0, 20, 80, 159)


def repulsion(online: Tensor, z: Tensor, generator: torch.Generator) -> dict[str, dict[str, float]]:
    """By choice: the share of steps that repel, and the mean change of the cosine.

    Args:
        online: projections of the encoder that is trained, `[image, view, dim]`.
        z: those of its moving average, by which the guide chooses, and toward which it pulls.
        generator: of partners and of chance.
    """
    rows = torch.arange(len(z))
    unit_online, unit_target = F.normalize(online, dim=2), F.normalize(z, dim=2)
    partners = choose_partners(len(z), generator)
    to_partner = torch.einsum("ivd,iwd->ivw", unit_online, unit_target[partners])
    guided, chance = nearest_views(z, partners).argmax(dim=1), random_views(z, None, generator).argmax(dim=1)
    decided = decidedness(distances_to_partner(z, partners)).argsort(descending=True)[: len(z) // 2]

    def measured(source: Tensor, images: Tensor = rows) -> dict[str, float]:
        s, t = unit_online[rows, source], unit_target[rows, 1 - source]
        near, which = to_partner[rows, source].max(dim=1)
        n = unit_target[partners, which]
        change = ((t * n).sum(dim=1) - (t * s).sum(dim=1) * near)[images]
        return {"repelled": float((change < 0).double().mean()), "cosine": float(change.mean())}

    return {"random_views": measured(chance), "nearest_views": measured(guided),
            "nearest_views, decided half": measured(guided, decided)}  # fmt: skip


def config_of(seed: int) -> Config:
    """BYOL, guided, without a predictor, at the studies' small scale."""
    return scale_of("small").base.replace(guide="nearest_views", predictor=False, seed=seed, steps=NUM_STEPS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--seed", type=int, default=50)
    given = parser.parse_args()
    scale, config, device = scale_of("small"), config_of(given.seed), torch.device("cpu")
    splits = splits_of(given.data, Images(scale.num_images, scale.num_held_out))
    store, _ = load_stores(config, splits, SilentReporter(), with_queries=False)
    method, loader = build_method(config, device), Loader(store, config, Rank())
    optimizer = build_optimizer(method, config)
    generator, found = torch.Generator().manual_seed(given.seed), {}
    for step, batch in enumerate(loader.batches(0, NUM_STEPS)):
        views = loader.views(batch, device)
        if step in MEASURED:
            with torch.no_grad():
                online, target = (
                    torch.stack([encoder(view) for view in views], dim=1)
                    for encoder in (method.encoder, method.target_encoder)
                )
                found[step] = repulsion(online, target, generator)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = method(views, generator)
        set_lr(optimizer, peak_lr(config), lr_factor(config, step, NUM_STEPS, loader.steps_per_epoch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step / NUM_STEPS)
    machine = environment(device, "bf16")
    command = f"python benchmarks/repulsion.py CIFAR10 --seed {given.seed}"
    kept = {name: machine[name] for name in ("versions", "device", "threads")}
    json.dump({"command": command, "seed": given.seed, **kept, "steps": found}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
