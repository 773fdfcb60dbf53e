"""The detection example: average precision by hand, COCO's masks, and a detector that holds the pretrained weights."""

import json

import average_precision as ap
import coco_format
import make_digit_scenes
import numpy as np
import pytest
import torch
from conftest import TINY

import stopgrad

pytest.importorskip("torchvision")
NO_CROWD = np.array([False])


def counted(*images):
    """The figures of images, each (scores, labels, boxes, true boxes, true labels, crowd)."""
    evaluation = ap.AveragePrecision()
    for scores, labels, boxes, true, true_labels, crowd in images:
        evaluation.add(
            np.array(scores), np.array(labels, int), np.array(boxes, float).reshape(-1, 4),
            np.array(true, float).reshape(-1, 4), np.array(true_labels, int), np.array(crowd, bool),
        )  # fmt: skip
    return evaluation.result()


A, B, FAR = [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]


def test_overlaps_by_hand():
    boxes = np.array([A, [5, 0, 15, 10], B], float)
    assert ap.box_ious(boxes, boxes[:1], NO_CROWD)[:, 0].tolist() == pytest.approx([1, 50 / 150, 0])
    # Of a crowd what counts is the share of the detection that lies in it.
    assert ap.box_ious(boxes, boxes[:1], ~NO_CROWD)[:, 0].tolist() == pytest.approx([1, 0.5, 0])
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2], masks[1, 1:3] = True, True
    assert ap.mask_ious(masks, masks[:1], NO_CROWD)[:, 0].tolist() == pytest.approx([1, 4 / 12])


def test_all_found_is_100_and_nothing_found_is_0():
    assert counted(([0.9, 0.8], [1, 1], [A, B], [A, B], [1, 1], [0, 0]))["AP"] == 100
    assert counted(([], [], [], [A], [1], [0]))["AP"] == 0
    assert counted(([0.9], [2], [A], [A], [1], [0]))["AP"] == 0
    assert counted(([0.9], [1], [A], [], [], []))["AP"] is None


def test_one_of_two_found_reads_51_of_101_recalls():
    # Recall .00 to .50 are reached at precision 1.
    assert counted(([0.9], [1], [A], [A, B], [1, 1], [0, 0]))["AP"] == pytest.approx(100 * 51 / 101, abs=0.01)


def test_a_false_detection_above_and_below():
    below = counted(([0.9, 0.1], [1, 1], [A, FAR], [A], [1], [0]))
    above = counted(([0.1, 0.9], [1, 1], [A, FAR], [A], [1], [0]))
    assert (below["AP"], above["AP"]) == (100, 50)


def test_an_object_is_found_once():
    # The second on the same object is false: precision 1, 1/2, 2/3; from recall .51 on the best is 2/3.
    found = counted(([0.9, 0.8, 0.7], [1, 1, 1], [A, A, B], [A, B], [1, 1], [0, 0]))
    assert found["AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101, abs=0.01)


def test_an_overlap_of_62_percent_counts_at_three_thresholds():
    # .50, .55 and .60 of the ten.
    found = counted(([0.9], [1], [[0, 0, 10, 6.2]], [A], [1], [0]))
    assert (found["AP"], found["AP50"], found["AP75"]) == (30, 100, 0)


def test_what_lies_in_a_crowd_is_ignored_and_classes_count_alike():
    crowd = counted(([0.9, 0.8, 0.7], [1, 1, 1], [B, B, A], [A, B], [1, 1], [0, 1]))
    assert crowd["AP"] == 100
    classes = counted(([0.9], [1], [A], [A, B, B, B], [1, 2, 2, 2], [0, 0, 0, 0]))
    assert classes["AP"] == 50
    assert classes["AP_of_class"] == {1: 100, 2: 0}


def test_scores_order_detections_over_all_images():
    first = ([0.6], [1], [A], [A], [1], [0])
    second = ([0.9], [1], [FAR], [A], [1], [0])
    # Precision 0, then 1/2 at recall 1/2.
    assert counted(first, second)["AP"] == pytest.approx(100 * 51 / 101 / 2, abs=0.01)


def random_case(rng):
    """Annotations and detections: jittered objects, false ones, wrong classes, duplicates, and a crowd now and then."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 100} for i in range(12)]
    annotations, detections = [], []
    for image in images:
        for _ in range(int(rng.integers(0, 6))):
            box = [*rng.uniform(0, 60, 2), *rng.uniform(8, 40, 2)]
            label = int(rng.integers(1, 4))
            annotations.append({
                "id": len(annotations) + 1, "image_id": image["id"], "category_id": label, "bbox": box,
                "area": box[2] * box[3], "iscrowd": int(rng.random() < 0.15),
            })  # fmt: skip
            for _ in range(int(rng.integers(0, 3))):
                near = (np.array(box) + rng.normal(0, 2, 4)).tolist()
                seen = label if rng.random() < 0.8 else int(rng.integers(1, 4))
                detections.append(
                    {"image_id": image["id"], "category_id": seen, "bbox": near, "score": float(rng.random())}
                )
    categories = [{"id": i, "name": str(i)} for i in range(1, 4)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


@pytest.mark.parametrize("seed", range(5))
def test_pycocotools_agrees_where_it_is_installed(seed, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pycocotools")
    truth, detections = random_case(np.random.default_rng(seed))
    files = [tmp_path / "truth.json", tmp_path / "found.json"]
    for file, content in zip(files, (truth, detections), strict=True):
        file.write_text(json.dumps(content))
    theirs = ap.with_pycocotools(files[0], detections, "bbox")
    monkeypatch.setattr(ap, "find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["average_precision.py", *map(str, files)])
    capsys.readouterr()
    ap.main()
    ours = json.loads(capsys.readouterr().out)
    assert {int(c): v for c, v in ours.pop("AP_of_class").items()} == pytest.approx(theirs.pop("AP_of_class"), abs=0.01)
    assert ours == pytest.approx(theirs, abs=0.01)


def test_masks_of_polygons_and_run_lengths():
    square = coco_format.fill([1, 2, 4, 2, 4, 5, 1, 5], 6, 7)
    expected = np.zeros((6, 7), bool)
    expected[2:5, 1:4] = True
    assert np.array_equal(square, expected)
    # Half of a square, and two polygons joined.
    assert coco_format.fill([0, 0, 4, 0, 0, 4], 4, 4).sum() in (6, 10)
    both = coco_format.mask_of([[0, 0, 1, 0, 1, 1, 0, 1], [3, 3, 5, 3, 5, 4, 3, 4]], 6, 7)
    assert np.argwhere(both).tolist() == [[0, 0], [3, 3], [3, 4]]
    assert np.array_equal(coco_format.mask_of(make_digit_scenes.run_lengths(square), 6, 7), square)
    full = np.ones((2, 3), bool)
    assert make_digit_scenes.run_lengths(full)["counts"] == [0, 6]
    assert np.array_equal(coco_format.mask_of({"counts": [6], "size": [2, 3]}, 2, 3), ~full)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "set"
    make_digit_scenes.make(folder, num_train=6, num_test=3, num_crops=32, size=96)
    return folder


def test_scenes_are_read_as_they_were_drawn(scenes):
    images = coco_format.CocoImages(scenes / "train", scenes / "train.json", masks=True)
    assert (len(images), images.classes) == (6, list("0123456789"))
    for image, target in images:
        assert image.shape == (3, 96, 96)
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            rows, columns = torch.where(mask)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [float(edge) for edge in edges]


def test_a_mirrored_image_has_mirrored_boxes_and_masks(scenes):
    images = coco_format.CocoImages(scenes / "train", scenes / "train.json", masks=True)
    (plain, one), (mirrored, other) = (coco_format.ToTrainOn(images, flip)[0] for flip in (0.0, 1.0))
    assert torch.equal(plain.flip(-1), mirrored)
    columns = torch.where(other["masks"][0])[1]
    assert other["boxes"][0, [0, 2]].tolist() == [columns.min(), columns.max() + 1]
    assert torch.equal(one["boxes"][:, [1, 3]], other["boxes"][:, [1, 3]])


@pytest.fixture(scope="module")
def run(tmp_path_factory, scenes):
    out = tmp_path_factory.mktemp("run") / "run"
    small = {**TINY, "epochs": 1, "image_size": 16, "batch_size": 16, "stem": "small_stride2", "device": "cpu"}
    stopgrad.pretrain(scenes / "unlabelled", out=out, holdout=0, **small)
    return out


def built(run, **options):
    import detection

    torch.manual_seed(0)
    return detection.build_detector(stopgrad.load_encoder(run), 10, width=16, rois=16, min_size=(96,), **options)


def test_the_backbone_in_the_detector_is_the_pretrained_one(run):
    encoder = stopgrad.load_encoder(run)
    body = built(run, masks=True).backbone.body
    for name, weight in encoder.backbone.state_dict().items():
        assert torch.equal(body.state_dict()[name], weight), name
    scratch = built(run, from_scratch=True).backbone.body
    assert scratch.state_dict().keys() == body.state_dict().keys()
    assert not torch.equal(scratch.layer4[0].conv1.weight, body.layer4[0].conv1.weight)
    # The pyramid sees what the encoder's own forward pass sees.
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        pooled = list(body.eval()(images).values())[-1].mean(dim=(2, 3))
        assert torch.allclose(pooled, encoder.backbone(images), atol=1e-5)


def test_normalisation_and_levels_are_the_encoders(run):
    encoder, detector = stopgrad.load_encoder(run), built(run)
    assert tuple(detector.transform.image_mean) == tuple(encoder.spec.mean)
    # Strides 2, 4, 8, 16 of the small stem: those from 4 on, and one pooled.
    assert list(detector.backbone.body.return_layers) == ["layer2", "layer3", "layer4"]
    assert detector.rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,))


@pytest.mark.parametrize(("freeze", "norm"), [(0, "trained"), (2, "trained"), (0, "frozen"), (5, "trained")])
def test_a_step_moves_what_is_not_frozen(run, scenes, freeze, norm):
    import detection

    detector = built(run, freeze=freeze, norm=norm)
    body = detector.backbone.body
    before = {name: value.clone() for name, value in body.state_dict().items()}
    images = coco_format.ToTrainOn(coco_format.CocoImages(scenes / "train", scenes / "train.json"), 0.0)
    losses = detection.train(
        detector, images, steps=1, batch_size=2, lr=0.01, weight_decay=1e-4, warmup_steps=0, seed=0,
        device=torch.device("cpu"),
    )  # fmt: skip
    assert np.isfinite(losses).all()
    moved = {name for name, value in body.state_dict().items() if not torch.equal(value, before[name])}
    parts = ["conv1 bn1", "layer1", "layer2", "layer3", "layer4"]
    for i, part in enumerate(parts):
        names = {name for name in moved if name.split(".")[0] in part.split()}
        assert bool(names) == (i >= freeze), part
        if norm == "frozen":
            assert not any("bn" in name for name in names)


def test_the_command_writes_its_figures(run, scenes, tmp_path, capsys, monkeypatch):
    import detection

    monkeypatch.setattr(ap, "find_spec", lambda name: None)
    out = tmp_path / "result.json"
    words = [str(run), "--train", str(scenes / "train"), str(scenes / "train.json"),
             "--test", str(scenes / "test"), str(scenes / "test.json"), "--out", str(out), "--masks", "--steps", "2",
             "--batch-size", "2", "--min-size", "96", "--width", "16", "--rois", "16", "--device", "cpu"]  # fmt: skip
    detection.main([*words, "--weights", str(tmp_path / "detector.pth")])
    kept = torch.load(tmp_path / "detector.pth", weights_only=True)
    built(run, masks=True).load_state_dict(kept)
    result = json.loads(out.read_text())
    assert (result["detector"], result["steps"], result["num_test_images"]) == ("MaskRCNN", 2, 3)
    assert {"AP", "AP50", "AP75", "AP_of_class"} == set(result["box"]) == set(result["mask"])
    assert "average_precision.py" in result["evaluated_with"]
    assert "box" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--overwrite"):
        detection.main(words)
    with pytest.raises(SystemExit, match="give a ResNet"):
        detection.main(["timm:vit_tiny_patch16_224?pretrained=false", *words[1:], "--overwrite"])
    words[3] = "absent.json"
    with pytest.raises(SystemExit, match=r"absent\.json"):
        detection.main([*words, "--overwrite"])
