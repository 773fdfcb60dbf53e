"""The table of docs/backbones.md: one small network of each family, trained for ten steps, saved, loaded and exported.

PYTHONPATH=tests python benchmarks/backbone_families.py docs/backbones.md
"""

import re
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from families import FAMILIES, side_of, trained
from torch.nn.modules.batchnorm import _BatchNorm

import stopgrad
from stopgrad.nets.backbones import build_backbone, takes_one_size

MARKED = re.compile(r"(<!-- families -->\n).*?(<!-- end -->)", re.DOTALL)


def row(family, network, folder):
    run = trained(network, folder / "run")
    encoder = stopgrad.load_encoder(run.path)
    side = side_of(network)
    pixels = torch.randint(256, (2, 3, side, side), dtype=torch.uint8)
    same = torch.equal(encoder.embed(pixels), run.encoder.embed(pixels))
    written = stopgrad.export(encoder, to="timm", out=folder / "exported.safetensors")
    backbone = build_backbone(network, image_size=side)
    weights = sum(p.numel() for p in backbone.parameters()) / 1e6
    norms = sum(isinstance(part, _BatchNorm) for part in backbone.modules())
    sizes = "one at a time" if takes_one_size(backbone) else "any"
    return (
        f"| {family} | `{network}` | {weights:.1f} | {encoder.spec.num_features} | {norms or 'none'} | {sizes} | "
        f"{'yes' if same else 'NO'} | {written.max_difference:.0e} |"
    )


def main():
    warnings.simplefilter("ignore")
    lines = ["| family | network | weights, M | features | BatchNorms | sizes | loads as saved | difference in timm |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for family, network in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            lines.append(row(family, network, Path(folder)))
            print(lines[-1], flush=True)
    page = Path(sys.argv[1])
    page.write_text(MARKED.sub(lambda m: m[1] + "\n".join(lines) + "\n" + m[2], page.read_text()))


if __name__ == "__main__":
    main()
