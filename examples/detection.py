r"""Detection and instance segmentation from a pretrained backbone: torchvision's Faster and Mask R-CNN on COCO data.

    pip install "stopgrad[torchvision]"
    python examples/make_digit_scenes.py SCENES
    python examples/detection.py ENCODER --train SCENES/train SCENES/train.json --test SCENES/test SCENES/test.json \
        --masks --out result.json

ENCODER is whatever `stopgrad.load_encoder` reads, a ResNet. `--from-scratch` is the control: the same network with
random weights. For several GPUs put `torchrun --nproc-per-node 8` for `python`. docs/transfer.md has the settings for
COCO itself.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from average_precision import AveragePrecision, evaluator, with_pycocotools
from coco_format import CocoImages, ToTrainOn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.misc import FrozenBatchNorm2d

import stopgrad
from stopgrad.artifacts.environment import environment
from stopgrad.artifacts.files import write_atomically
from stopgrad.errors import StopgradError
from stopgrad.hardware import choose_device
from stopgrad.nets.backbones import build_backbone

STAGES = ("layer1", "layer2", "layer3", "layer4")
# Finer maps cost much and are not used by the field; only small stems have them.
FINEST_STRIDE = 4


def build_detector(
    encoder: stopgrad.Encoder, num_classes: int, *, masks: bool = False, from_scratch: bool = False, freeze: int = 0,
    norm: str = "trained", width: int = 256, rois: int = 512, min_size: tuple[int, ...] = (800,), max_size: int = 1333,
) -> FasterRCNN:  # fmt: skip
    """Faster R-CNN, or with masks Mask R-CNN, with a feature pyramid over the encoder's ResNet.

    Args:
        encoder: its backbone becomes part of the detector, and its means and deviations the detector's.
        num_classes: without the background.
        from_scratch: random weights in the backbone's place, drawn by torch's seed.
        freeze: parts of the backbone that stay as they are: 0 none, 1 the stem, 2 layer1 too, ..., 5 all.
        norm: `trained` BatchNorm, also in the pyramid, as MoCo has it (arXiv 1911.05722, section 4.2), or `frozen`.
        width: channels of the pyramid and of the mask head; the box head has four times as many. 256 in the papers.
        rois: regions of an image that the heads train on.
        min_size: the images' shorter side; of several, one is drawn in training and the last is used in testing.

    Raises:
        ValueError: the network is no ResNet in timm's or torchvision's layout.
    """
    spec, body = encoder.spec, encoder.backbone
    if not all(hasattr(body, stage) for stage in STAGES):
        raise ValueError(f"{encoder.name} has no stages {', '.join(STAGES)}: give a ResNet.")
    if from_scratch:
        body = build_backbone(spec.backbone, stem=spec.stem, image_size=spec.image_size)
    channels, strides = stage_shapes(body)
    _freeze(body, freeze, norm)
    used = [stage for stage in STAGES if strides[stage] >= FINEST_STRIDE]
    pyramid = BackboneWithFPN(
        body, {stage: str(i) for i, stage in enumerate(used)}, [channels[stage] for stage in used], width,
        norm_layer=nn.BatchNorm2d if norm == "trained" else None,
    )  # fmt: skip
    # One more level is pooled from the last. Anchors as in the FPN paper: 32 pixels at stride 4, and so on.
    levels = [strides[stage] for stage in used] + [2 * strides[used[-1]]]
    anchors = AnchorGenerator(tuple((8 * s,) for s in levels), ((0.5, 1.0, 2.0),) * len(levels))
    names = [str(i) for i in range(len(used))]
    parts = {
        "image_mean": list(spec.mean), "image_std": list(spec.std), "min_size": min_size, "max_size": max_size,
        "rpn_anchor_generator": anchors, "box_batch_size_per_image": rois,
        "box_roi_pool": MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
        "box_head": TwoMLPHead(width * 49, 4 * width), "box_predictor": FastRCNNPredictor(4 * width, num_classes + 1),
    }  # fmt: skip
    if not masks:
        return FasterRCNN(pyramid, **parts)
    return MaskRCNN(
        pyramid, **parts, mask_roi_pool=MultiScaleRoIAlign(names, output_size=14, sampling_ratio=2),
        mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(width, width, num_classes + 1),
    )  # fmt: skip


@torch.no_grad()
def stage_shapes(body: nn.Module) -> tuple[dict[str, int], dict[str, int]]:
    """Channels and strides of a ResNet's stages, as they come out of it."""
    shapes, side = {}, 128
    hooks = [
        getattr(body, stage).register_forward_hook(lambda _m, _i, out, stage=stage: shapes.update({stage: out.shape}))
        for stage in STAGES
    ]
    weight = next(body.parameters())
    body.eval()(torch.zeros(1, 3, side, side, device=weight.device))
    for hook in hooks:
        hook.remove()
    return {s: shapes[s][1] for s in STAGES}, {s: side // shapes[s][-1] for s in STAGES}


def _freeze(body: nn.Module, parts: int, norm: str) -> None:
    stem = [child for name, child in body.named_children() if name not in STAGES]
    groups = [nn.ModuleList(stem), *(getattr(body, stage) for stage in STAGES)]
    for group in groups[:parts]:
        group.requires_grad_(False)
    still = groups if norm == "frozen" else groups[:parts]
    norms = {module for group in still for module in group.modules() if isinstance(module, nn.BatchNorm2d)}
    for parent in list(body.modules()):
        for name, child in parent.named_children():
            if child in norms:
                frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
                frozen.load_state_dict({k: v for k, v in child.state_dict().items() if k != "num_batches_tracked"})
                setattr(parent, name, frozen)


def train(
    detector: nn.Module, images: ToTrainOn, *, steps: int, batch_size: int, lr: float, weight_decay: float,
    warmup_steps: int, seed: int, device: torch.device, workers: int = 0,
) -> list[float]:  # fmt: skip
    """Train by SGD: momentum 0.9, linear warm-up, the rate divided by ten at 2/3 and 8/9 of the steps.

    Returns:
        The loss of each step, of this process's images.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    detector.to(device).train()
    model = detector
    if world > 1:
        if device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        model = DistributedDataParallel(model, [device.index] if device.type == "cuda" else None)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(weights, lr, momentum=0.9, weight_decay=weight_decay)
    losses: list[float] = []
    started = said = time.monotonic()
    torch.manual_seed(seed + rank)
    for batch in batches(images, steps, batch_size, seed, rank, world, workers):
        step = len(losses)
        share = 0.1 ** ((step >= steps * 2 / 3) + (step >= steps * 8 / 9)) * min(1.0, (step + 1) / max(1, warmup_steps))
        for group in optimizer.param_groups:
            group["lr"] = lr * share
        pictures = [image.to(device) for image, _ in batch]
        targets = [{name: values.to(device) for name, values in target.items()} for _, target in batch]
        loss: Tensor = sum(model(pictures, targets).values())
        if not math.isfinite(loss.item()):
            raise SystemExit(f"the loss is {loss.item()} at step {step + 1}: use a smaller --lr or a longer warm-up.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if rank == 0 and (time.monotonic() - said > 10 or len(losses) == steps):
            said = time.monotonic()
            print(f"step {len(losses)}/{steps}  loss {loss.item():.3f}  {said - started:.0f} s", file=sys.stderr)
    return losses


def batches(
    images: ToTrainOn, steps: int, batch_size: int, seed: int, rank: int, world: int, workers: int
) -> DataLoader:  # fmt: skip
    """So many batches, epoch after epoch in new orders; `batch_size` is of all processes together."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < steps * batch_size:
        order += torch.randperm(len(images), generator=generator).tolist()
    mine = [order[s * batch_size + rank : (s + 1) * batch_size : world] for s in range(steps)]
    return DataLoader(images, batch_sampler=mine, collate_fn=list, num_workers=workers)


@torch.no_grad()
def evaluate(
    detector: nn.Module, images: CocoImages, annotations: Path, device: torch.device, workers: int = 0
) -> dict[str, Any]:
    """AP of boxes, and of masks if the images have them, in percent."""
    kinds = {"bbox": "boxes", "segm": "masks"} if images.masks else {"bbox": "boxes"}
    library = evaluator() != AveragePrecision.name
    counted = {kind: AveragePrecision() for kind in kinds}
    written: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    detector.to(device).eval()
    loader = DataLoader(images, batch_size=None, num_workers=workers)
    for (image, target), about in zip(loader, images.images, strict=True):
        found = {name: values.cpu() for name, values in detector([image.to(device)])[0].items()}
        if "masks" in found:
            found["masks"] = found["masks"][:, 0] >= 0.5
        ids = [images.category_ids[label - 1] for label in found["labels"].tolist()]
        for kind, name in kinds.items():
            if library:
                for category, score, place in zip(ids, found["scores"].tolist(), coco_places(found[name]), strict=True):
                    one = {"image_id": about["id"], "category_id": category, "score": score, **place}
                    written[kind].append(one)
            else:
                arguments = (found["scores"], found["labels"], found[name], target[name], target["labels"])
                counted[kind].add(*(values.numpy() for values in arguments), target["crowd"].numpy())
    figures = {}
    for kind in kinds:
        result = with_pycocotools(annotations, written[kind], kind) if library else counted[kind].result()
        ids = images.category_ids if library else range(1, len(images.classes) + 1)
        names = dict(zip(ids, images.classes, strict=True))
        result["AP_of_class"] = {names[c]: value for c, value in result["AP_of_class"].items()}
        figures["box" if kind == "bbox" else "mask"] = result
    return figures


def coco_places(boxes_or_masks: Tensor) -> list[dict[str, Any]]:
    """Boxes or masks as COCO's results have them."""
    if boxes_or_masks.ndim == 2:
        widths = boxes_or_masks[:, 2:] - boxes_or_masks[:, :2]
        return [{"bbox": box} for box in torch.cat([boxes_or_masks[:, :2], widths], dim=1).tolist()]
    from pycocotools.mask import encode

    return [{"segmentation": encode(mask.numpy().astype("uint8", order="F"))} for mask in boxes_or_masks]


def arguments_of(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("encoder", help="a run, an encoder.safetensors, another program's weights, or timm:NAME")
    add("--train", nargs=2, type=Path, required=True, metavar=("IMAGES", "ANNOTATIONS"))
    add("--test", nargs=2, type=Path, required=True, metavar=("IMAGES", "ANNOTATIONS"))
    add("--out", type=Path, required=True, help="JSON with settings, figures and environment")
    add("--weights", type=Path, help="keep the trained detector's state dict here, a .pth")
    add("--overwrite", action="store_true")
    add("--masks", action="store_true", help="Mask R-CNN instead of Faster R-CNN")
    add("--from-scratch", action="store_true", help="the control: the same network with random weights")
    add("--freeze", type=int, default=0, choices=range(6), help="1: the stem, 2: layer1 too, ..., 5: the backbone")
    add("--norm", choices=("trained", "frozen"), default="trained", help="the backbone's BatchNorm")
    add("--epochs", type=float, default=12.0)
    add("--steps", type=int, default=0, help="instead of epochs")
    add("--batch-size", type=int, default=16, help="images a step, of all processes together")
    add("--lr", type=float, default=0.02)
    add("--weight-decay", type=float, default=1e-4)
    add("--warmup-steps", type=int, default=500)
    add("--flip", type=float, default=0.5, help="probability that a training image is mirrored")
    add("--min-size", type=int, nargs="+", default=[800], help="shorter side; of several one is drawn in training")
    add("--max-size", type=int, default=1333)
    add("--width", type=int, default=256, help="channels of the pyramid and heads")
    add("--rois", type=int, default=512, help="regions an image to train on")
    add("--workers", type=int, default=0)
    add("--device", default="auto")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def prepared(a: argparse.Namespace) -> tuple[stopgrad.Encoder, ToTrainOn, CocoImages, FasterRCNN]:
    """What the command line names: encoder, images to train and to test on, and the detector."""
    for file in (a.out, a.weights):
        if file is not None and file.exists() and not a.overwrite:
            raise ValueError(f"{file} exists: name another file, or add --overwrite.")
    encoder = stopgrad.load_encoder(a.encoder)
    images = ToTrainOn(CocoImages(*a.train, masks=a.masks), a.flip)
    tested = CocoImages(*a.test, masks=a.masks)
    if not len(images):
        raise ValueError(f"{a.train[1]}: no image has an object.")
    if images.images.category_ids != tested.category_ids:
        raise ValueError(f"{a.train[1]} and {a.test[1]} have other categories.")
    detector = build_detector(
        encoder, len(tested.classes), masks=a.masks, from_scratch=a.from_scratch, freeze=a.freeze, norm=a.norm,
        width=a.width, rois=a.rois, min_size=tuple(a.min_size), max_size=a.max_size,
    )  # fmt: skip
    return encoder, images, tested, detector


def main(argv: list[str] | None = None) -> None:
    """Train, test, write and print."""
    a = arguments_of(argv)
    torch.manual_seed(a.seed)
    try:
        encoder, images, tested, detector = prepared(a)
        device = choose_device(a.device, int(os.environ.get("LOCAL_RANK", 0)))
    except (StopgradError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group()
    steps = a.steps or max(1, round(a.epochs * len(images) / a.batch_size))
    started = time.monotonic()
    losses = train(
        detector, images, steps=steps, batch_size=a.batch_size, lr=a.lr, weight_decay=a.weight_decay,
        warmup_steps=a.warmup_steps, seed=a.seed, device=device, workers=a.workers,
    )  # fmt: skip
    seconds = time.monotonic() - started
    if dist.is_initialized():
        first = dist.get_rank() == 0
        dist.destroy_process_group()
        if not first:
            return
    if a.weights is not None:
        # As build_detector's network takes them; plain tensors.
        state = {name: value.detach().cpu() for name, value in detector.state_dict().items()}
        write_atomically(a.weights, lambda there: torch.save(state, there))
    result = {
        **evaluate(detector, tested, a.test[1], device, a.workers), "evaluated_with": evaluator(),
        "encoder": encoder.name, "backbone": encoder.spec.backbone, "stem": encoder.spec.stem,
        "detector": type(detector).__name__, "from_scratch": a.from_scratch, "num_train_images": len(images),
        "num_test_images": len(tested), "steps": steps, "train_seconds": round(seconds, 1),
        "loss": {"first": losses[0], "last": sum(losses[-10:]) / len(losses[-10:])},
        "settings": {name: value for name, value in vars(a).items() if name not in ("out", "overwrite")},
        "environment": environment(device, "fp32"),
    }  # fmt: skip
    text = json.dumps(result, indent=1, default=str) + "\n"
    write_atomically(a.out, lambda there: Path(there).write_text(text))
    for kind in ("box", "mask"):
        if kind in result:
            print(f"{kind:4}  AP {result[kind]['AP']}  AP50 {result[kind]['AP50']}  AP75 {result[kind]['AP75']}")
    print(f"evaluated with {result['evaluated_with']}; {a.out}")


if __name__ == "__main__":
    main()
