"""Features in two dimensions, and in groups."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

PERPLEXITY = 30
# Below this many, t-SNE has too few neighbours to arrange.
FEWEST_FOR_TSNE = 60
PCA_DIMENSIONS = 50
# Half and more of the usual 1,000: begun at PCA's places, little moves after that.
ITERATIONS, ITERATIONS_OF_MANY, MANY = 750, 500, 3000
MAX_CLUSTERS = 10


def layout_2d(features: Float[Tensor, "image dim"]) -> tuple[Float[np.ndarray, "image 2"], str] | None:
    """A place in the plane for every image, and in words how it was found; None where all features are alike.

    t-SNE after PCA, from PCA's own places and with a fixed seed, so that the same features give the same map; PCA alone
    for few images.

    Args:
        features: L2-normalised, finite.

    Source: van der Maaten and Hinton, "Visualizing Data using t-SNE" (JMLR 2008); started from PCA as in Kobak and
    Berens (Nature Communications 2019).
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    centred = features - features.mean(dim=0)
    if len(features) < 3 or not float(centred.square().sum(dim=1).mean()) > 1e-8:
        return None
    dimensions = min(PCA_DIMENSIONS, *features.shape)
    reduced = PCA(dimensions, svd_solver="full", random_state=0).fit_transform(centred.double().numpy())
    if reduced.shape[1] < 2:
        return np.pad(reduced, ((0, 0), (0, 2 - reduced.shape[1]))).astype(np.float64), "their one dimension"
    if len(features) < FEWEST_FOR_TSNE:
        return reduced[:, :2], "their first two principal components"
    perplexity = min(PERPLEXITY, len(features) / 4)
    iterations = ITERATIONS if len(features) <= MANY else ITERATIONS_OF_MANY
    tsne = TSNE(init="pca", perplexity=perplexity, max_iter=iterations, random_state=0)
    # Its threads wait for each other by spinning: two are hardly faster than one, and many times slower on a busy
    # machine.
    with threadpool_limits(1):
        places = tsne.fit_transform(reduced.astype(np.float32)).astype(np.float64)
    if not np.isfinite(places).all():
        return reduced[:, :2], "their first two principal components"
    return places, f"t-SNE (perplexity {perplexity:g}) after PCA to {dimensions} dimensions"


def clusters(features: Float[Tensor, "image dim"]) -> tuple[Int[Tensor, "image"], list[list[int]]]:
    """k-means of L2-normalised features: the cluster of each image, and of each the images nearest to its centre.

    Largest first. At most ten clusters, fewer for fewer than 200 images.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    wanted = max(2, min(MAX_CLUSTERS, len(features) // 20))
    with threadpool_limits(1):
        means = KMeans(wanted, n_init=4, random_state=0).fit(features.double().numpy())
    found = means.labels_
    order = np.argsort(-np.bincount(found, minlength=wanted), kind="stable")
    rank = np.empty(wanted, dtype=np.int64)
    rank[order] = np.arange(wanted)
    distance = np.linalg.norm(features.double().numpy() - means.cluster_centers_[found], axis=1)
    nearest = [
        sorted(np.flatnonzero(found == cluster).tolist(), key=distance.__getitem__)[:12]
        for cluster in order if (found == cluster).any()
    ]  # fmt: skip
    return torch.from_numpy(rank[found]), nearest
