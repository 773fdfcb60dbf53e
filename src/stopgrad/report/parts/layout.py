"""Features in two dimensions, and in groups."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stopgrad.data.decode import evenly_spaced
from stopgrad.metrics.neighbours import nearest_neighbours

PERPLEXITY = 30
# Below this many, t-SNE has too few neighbours to arrange.
FEWEST_FOR_TSNE = 60
PCA_DIMENSIONS = 50
# Half and more of the usual 1,000: begun at PCA's places, little moves after that.
ITERATIONS, ITERATIONS_OF_MANY, MANY = 750, 500, 3000
MAX_CLUSTERS = 10
MOST_ARRANGED = 10_000
"""Images that t-SNE arranges and k-means groups, in a minute or two; of more, the others follow their neighbours."""
FOLLOWED = 10


def layout_2d(features: Float[Tensor, "image dim"]) -> tuple[Float[np.ndarray, "image 2"], str] | None:
    """A place in the plane for every image, and in words how it was found; None where all features are alike.

    t-SNE after PCA, from PCA's own places and with a fixed seed, so that the same features give the same map; PCA alone
    for few images. Of more than `MOST_ARRANGED`, so many are arranged, evenly spaced, and each of the others stands at
    the median place of its nearest ten of them.

    Args:
        features: L2-normalised, finite.

    Source: van der Maaten and Hinton, "Visualizing Data using t-SNE" (JMLR 2008); started from PCA, and the others
    placed, as in Kobak and Berens (Nature Communications 2019).
    """
    if len(features) <= MOST_ARRANGED:
        return _arranged(features)
    rows = evenly_spaced(len(features), MOST_ARRANGED)
    arranged = _arranged(features[rows])
    if arranged is None:
        return None
    some, how = arranged
    others = np.setdiff1d(np.arange(len(features)), rows)
    _, nearest = nearest_neighbours(features[rows], features[torch.from_numpy(others)], FOLLOWED)
    places = np.empty((len(features), 2))
    places[rows] = some
    places[others] = np.median(some[nearest.numpy()], axis=1)
    return places, f"{how} of {MOST_ARRANGED:,}, the others at the median of their nearest {FOLLOWED}"


def _arranged(features: Float[Tensor, "image dim"]) -> tuple[Float[np.ndarray, "image 2"], str] | None:
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
    some = features if len(features) <= MOST_ARRANGED else features[evenly_spaced(len(features), MOST_ARRANGED)]
    with threadpool_limits(1):
        means = KMeans(wanted, n_init=4, random_state=0).fit(some.double().numpy())
    centres = torch.from_numpy(means.cluster_centers_)
    # By differences, as products would round away what sets nearly equal images apart.
    mode = "donot_use_mm_for_euclid_dist"
    distances = [torch.cdist(part.double(), centres, compute_mode=mode) for part in features.split(1024)]
    found = means.labels_ if some is features else torch.cat([part.argmin(dim=1) for part in distances]).numpy()
    order = np.argsort(-np.bincount(found, minlength=wanted), kind="stable")
    rank = np.empty(wanted, dtype=np.int64)
    rank[order] = np.arange(wanted)
    distance = torch.cat(distances).numpy()[np.arange(len(found)), found]
    nearest = [
        sorted(np.flatnonzero(found == cluster).tolist(), key=distance.__getitem__)[:12]
        for cluster in order if (found == cluster).any()
    ]  # fmt: skip
    return torch.from_numpy(rank[found]), nearest
