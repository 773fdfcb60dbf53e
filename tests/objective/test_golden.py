"""The authors' own numbers."""

import numpy as np
import pytest
import torch

from stopgrad import GuidedStopGradientLoss, knn_predict
from stopgrad.objective.guides import cross_image_distances


@pytest.fixture(scope="module")
def golden(shared_data):
    return np.load(shared_data / "golden" / "gsg_official.npz")


@pytest.mark.parametrize("case", [0, 1])
def test_loss_gradient_and_choices_equal_the_authors(golden, case):
    # Their arrays are [view, image, dim].
    target = torch.from_numpy(golden[f"loss{case}_z"]).transpose(0, 1)
    prediction = torch.from_numpy(golden[f"loss{case}_p"]).transpose(0, 1).clone().requires_grad_()
    partners = torch.from_numpy(golden[f"loss{case}_perm"])
    loss = GuidedStopGradientLoss("nearest_views")(prediction, target, partners)
    loss.backward()
    assert loss.item() == pytest.approx(float(golden[f"loss{case}_loss"]), abs=1e-6)
    gradient = prediction.grad.transpose(0, 1).numpy()
    np.testing.assert_allclose(gradient, golden[f"loss{case}_grad"], atol=1e-6)
    _, _, distances = cross_image_distances(target, partners)
    np.testing.assert_array_equal(distances.argmin(dim=1).numpy(), golden[f"loss{case}_choice"])


@pytest.mark.parametrize("budget", [2**28, 10_000])
def test_knn_predicts_the_authors_labels(golden, budget):
    tensor = {name: torch.from_numpy(np.asarray(golden[f"knn0_{name}"])) for name in ("bank", "bank_label", "query")}
    predicted = knn_predict(
        tensor["bank"], tensor["bank_label"], tensor["query"], k=int(golden["knn0_k"]),
        temperature=float(golden["knn0_t"]), num_classes=int(golden["knn0_num_classes"]), memory_budget_bytes=budget,
    )  # fmt: skip
    np.testing.assert_array_equal(predicted.numpy(), golden["knn0_pred"])
