"""The guided loss, the choice of partners, and both as one module for any training loop."""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from stopgrad.objective.cosine import directions, negative_cosine
from stopgrad.objective.guides import GUIDES, Guide, traits_of


def choose_partners(
    num_images: int, generator: Generator | None = None, *, mutual: bool = True
) -> Int[Tensor, "image"]:
    """Draw each image's reference image.

    Args:
        num_images: images of the batch; at least 1, or 2 for `mutual=False`.
        generator: source of randomness; None takes torch's own.
        mutual: True draws a perfect matching (`partners[partners] == arange`, one fixed point if `num_images` is
            odd). False draws a permutation without fixed points: one random cycle through all images.

    Returns:
        int64 `[image]` on the generator's device.

    Raises:
        ValueError: too few images.
    """
    if num_images < (1 if mutual else 2):
        raise ValueError(f"{num_images} images: too few to choose partners from.")
    order = random_permutation(num_images, generator)
    partners = torch.empty_like(order)
    if not mutual:
        partners[order] = order.roll(-1)
        return partners
    half = num_images // 2
    left, right = order[:half], order[half : 2 * half]
    partners[left], partners[right] = right, left
    partners[order[2 * half :]] = order[2 * half :]
    return partners


def random_permutation(num_images: int, generator: Generator | None = None) -> Int[Tensor, "image"]:
    """The authors' own choice of partners: a plain permutation, in which an image may meet itself."""
    device = generator.device if generator is not None else None
    return torch.randperm(num_images, generator=generator, device=device)


def other_views(target: Float[Tensor, "image view dim"], targets: str = "other") -> Float[Tensor, "image view dim"]:
    """What each view's prediction is pulled toward.

    Args:
        target: projections, pairs of views (0, 1), (2, 3), ...
        targets: `other`: the other view of its pair; `mean_of_others`: the mean of all the image's other views
            (FastSiam, DAGM 2022). The same with two views.
    """
    if targets == "other":
        return target.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)
    return (target.sum(dim=1, keepdim=True) - target) / (target.shape[1] - 1)


def guided_loss(
    prediction: Float[Tensor, "image view dim"],
    target: Float[Tensor, "image view dim"],
    weights: Float[Tensor, "image view"],
    targets: str = "other",
) -> Float[Tensor, ""]:
    """Mean over images of the sum over views of weight x D(prediction of the view, target of the other view or views).

    Args:
        prediction: predictor outputs, pairs of views (0, 1), (2, 3), ...
        target: projections; no gradient reaches them.
        weights: source weights, summing to one an image (over the batch on average, with four views).
        targets: as for `other_views`.

    Returns:
        A float32 scalar in [-1, 1].

    Source: arXiv 2503.09058, section 3; with symmetric weights, SimSiam (arXiv 2011.10566), equation 4.
    """
    return (weights * negative_cosine(prediction, other_views(target.detach(), targets))).sum(dim=1).mean()


def share_of_views(weights: Float[Tensor, "image view"], num_local: int) -> Float[Tensor, "image"]:
    """Share of an image's loss that falls on its sources among the views, S / (S + L).

    S is the number of its views with weight, `num_local` (L) that of its local views: so each prediction counts alike.
    """
    num_sources = (weights > 0).sum(dim=1)
    return num_sources / (num_sources + num_local)


def local_loss(
    local: Float[Tensor, "image local dim"],
    target: Float[Tensor, "image view dim"],
    weights: Float[Tensor, "image view"],
    targets: str = "other",
) -> Float[Tensor, ""]:
    """The part of `multi_crop_loss` that falls on the local views; arguments as there.

    D is linear in a target's direction, so all of an image's targets enter as one sum of directions.
    """
    toward = directions(other_views(target.detach(), targets))
    direction = (weights[:, :, None] * toward).sum(dim=1, keepdim=True)
    distance = -(directions(local) * direction).sum(dim=2).mean(dim=1)
    return ((1 - share_of_views(weights, local.shape[1])) * distance).mean()


def multi_crop_loss(
    prediction: Float[Tensor, "image view dim"],
    target: Float[Tensor, "image view dim"],
    weights: Float[Tensor, "image view"],
    local: Float[Tensor, "image local dim"],
    targets: str = "other",
) -> Float[Tensor, ""]:
    """`guided_loss` with local views, which are sources alone.

    A local view is pulled toward the targets that the image's sources are pulled toward, as strongly as those are:
    with a guide toward the guided target alone, so that it follows the guide; with symmetric weights toward all alike.
    It has no target of its own and no part in the choice. With S sources, L local views, weights w, predictions p of
    the views and q of the local views, and t(v) the target of source v, an image's loss is

        [S x sum over v of w(v) D(p(v), t(v))  +  sum over local views l and v of w(v) D(q(l), t(v))] / (S + L)

    so that every prediction counts alike: S is the number of views with weight, 2 for symmetric weights on two views
    and 1 for guided ones. The loss is the mean over images.

    Args:
        prediction: predictor outputs of the views, pairs (0, 1), (2, 3), ...
        target: projections of the views; no gradient reaches them.
        weights: source weights, as for `guided_loss`.
        local: predictor outputs of the local views, at least one an image.
        targets: as for `other_views`.

    Returns:
        A float32 scalar in [-1, 1].

    Source: small crops beside large ones as in SwAV (arXiv 2006.09882), targets of the large ones alone as in DINO
    (arXiv 2104.14294). How they follow the guide is ours.
    """
    share = share_of_views(weights, local.shape[1])
    sources = guided_loss(prediction, target, share[:, None] * weights, targets)
    return sources + local_loss(local, target, weights, targets)


def source_views(weights: Float[Tensor, "image view"], group: int = 2) -> Int[Tensor, "image source"]:
    """Index of the source in each `group` of views: the one with the largest weight, the first of equals."""
    starts = torch.arange(0, weights.shape[1], group, device=weights.device)
    return weights.unflatten(1, (-1, group)).argmax(dim=2) + starts


class GuidedStopGradientLoss(nn.Module):
    """Guided stop-gradient as a loss for any training loop.

    Args:
        guide: `nearest_views` (the paper's), `symmetric`, `random_views` or `farthest_views`; or a function of your
            own, as `stopgrad.objective.guides` describes it.
        generator: source of partners and coins; None takes torch's own.

    Raises:
        ValueError: an unknown guide.

    Example::

        criterion = GuidedStopGradientLoss()
        z1, z2 = projector(backbone(view1)), projector(backbone(view2))
        p1, p2 = predictor(z1), predictor(z2)
        loss = criterion(torch.stack([p1, p2], dim=1), torch.stack([z1, z2], dim=1))

    With local views (multi-crop), their predictions `[image, local, dim]` are given as `local`.

    Source: arXiv 2503.09058.
    """

    def __init__(self, guide: str | Guide = "nearest_views", *, generator: Generator | None = None) -> None:
        super().__init__()
        if isinstance(guide, str) and guide not in GUIDES:
            raise ValueError(f"unknown guide {guide!r}: valid: {', '.join(GUIDES)}.")
        self.guide = guide
        self.generator = generator

    def forward(
        self,
        prediction: Float[Tensor, "image view dim"],
        target: Float[Tensor, "image view dim"],
        partners: Int[Tensor, "image"] | None = None,
        *,
        local: Float[Tensor, "image local dim"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of a batch.

        Args:
            prediction: predictor outputs `[image, view, dim]`.
            target: projections, of the online or the EMA encoder; detached here.
            partners: `[image]`; None draws them, for a guide that needs any. Two views take a perfect matching
                (one fixed point if the number of images is odd), four any permutation: image i's views 0, 1 are
                compared with views 2, 3 of image `partners[i]`, and the loss is the mean over i of
                1/2 D(image i's source) + 1/2 D(image partners[i]'s source).
            local: predictor outputs of local views, as for `multi_crop_loss`; None: there are none.

        Returns:
            A float32 scalar in [-1, 1].

        Raises:
            ValueError: shapes that do not agree, or partners of another kind.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape.")
        weights = self.weights(target, partners)
        if local is None:
            return guided_loss(prediction, target, weights)
        return multi_crop_loss(prediction, target, weights, local)

    def weights(
        self, target: Float[Tensor, "image view dim"], partners: Int[Tensor, "image"] | None = None
    ) -> Float[Tensor, "image view"]:
        """The guide's source weights `[image, view]`, without gradient; arguments as for `forward`."""
        num_images, num_views = target.shape[:2]
        guide = GUIDES[self.guide] if isinstance(self.guide, str) else self.guide
        traits = traits_of(guide)
        mutual = num_views == 2 or traits.sources == "image"
        if traits.needs_partners:
            if partners is None:
                partners = choose_partners(num_images, self.generator, mutual=mutual)
            else:
                _check_partners(partners, num_images, mutual=mutual)
        return guide(target.detach(), partners, self.generator)

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"guide={self.guide!r}"


def _check_partners(partners: Tensor, num_images: int, *, mutual: bool) -> None:
    index = torch.arange(num_images, device=partners.device)
    if partners.shape != index.shape or partners.is_floating_point():
        raise ValueError(f"partners of shape {tuple(partners.shape)}: needs {num_images} whole numbers, one an image.")
    if not torch.equal(partners.sort().values, index):
        raise ValueError(f"partners must be a permutation of 0..{num_images - 1}.")
    if mutual:
        if not torch.equal(partners[partners], index):
            raise ValueError("this guide, or two views, need mutual partners: partners[partners[i]] == i for every i.")
        num_alone = int((partners == index).sum())
        if num_alone != num_images % 2:
            raise ValueError(
                f"{num_alone} images are their own partner: a perfect matching of {num_images} leaves {num_images % 2}."
            )
