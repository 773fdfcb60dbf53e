import pytest
import torch

from stopgrad.config import without_effect
from stopgrad.errors import ConfigError
from stopgrad.studies import STUDIES, study_of
from stopgrad.studies.cells import cells_of, on_device
from stopgrad.studies.scales import SCALES, scale_of
from stopgrad.train.build import build_method

NAMES = [(study, scale) for study in STUDIES for scale in SCALES]


@pytest.mark.parametrize(("study", "scale"), NAMES)
def test_every_arm_has_a_valid_config_of_its_own(study, scale):
    cells = cells_of(STUDIES[study], SCALES[scale](), [0, 1])
    assert len({cell.key for cell in cells}) == len(cells)
    assert len({arm.name for arm in STUDIES[study].arms}) * 2 == len(cells)


@pytest.mark.parametrize("study", STUDIES)
def test_no_arm_has_a_setting_without_effect(study):
    scale = scale_of("small")
    for arm in STUDIES[study].arms:
        own = set(arm.settings) - {"source_first", "targets"}  # said though symmetric arms do without
        assert without_effect(arm.config(scale, 0), own) == [], arm.name


@pytest.mark.parametrize("study", STUDIES)
def test_comparisons_are_of_arms_that_exist_and_differ(study):
    names = {arm.name for arm in STUDIES[study].arms}
    for comparison in STUDIES[study].comparisons:
        assert comparison.arm in names
        assert comparison.rival in names
        assert comparison.arm != comparison.rival


def test_arms_that_studies_share_are_one_cell():
    main, bare = (cells_of(study_of(name), scale_of("small"), [0]) for name in ("main", "no-predictor"))
    shared = {c.key for c in main} & {c.key for c in bare}
    assert len(shared) == 7  # the untrained network, and two methods with three guides


def test_what_is_compared_at_equal_passes_costs_the_same():
    scale = scale_of("full")
    for study in STUDIES.values():
        cost = {c.arm.name: c.passes(1000) for c in cells_of(study, scale, [0])}
        for comparison in study.comparisons:
            if comparison.question == "equal passes":
                assert cost[comparison.arm] == pytest.approx(cost[comparison.rival], rel=0.01), comparison


def test_where_a_cell_runs_is_no_part_of_its_key():
    cell = cells_of(study_of("main"), scale_of("digits"), [0])[1]
    assert on_device(cell, devices=2, workers=3, cache="off").key == cell.key
    assert on_device(cell, lr=0.5).key != cell.key
    assert on_device(cell, batch_groups=2).key != cell.key
    assert cells_of(study_of("main"), scale_of("digits"), [0], judged_by="test")[1].key != cell.key


def test_paired_arms_begin_with_the_same_backbone():
    cells = [c for c in cells_of(study_of("main"), scale_of("digits"), [3]) if c.arm.name != "untrained"]
    first, *others = (build_method(cell.config, torch.device("cpu")).backbone.state_dict() for cell in cells)
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_unknown_names():
    with pytest.raises(ConfigError, match="unknown study 'mian': did you mean 'main'"):
        study_of("mian")
    with pytest.raises(ConfigError, match="unknown scale"):
        scale_of("tiny")
