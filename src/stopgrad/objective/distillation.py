"""Self-distillation: a teacher's assignment of an image is what a student predicts from another view."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stopgrad.objective.cosine import at_least_fp32


def self_distillation(
    student: Float[Tensor, "image prototype"], teacher: Float[Tensor, "image prototype"],
    centre: Float[Tensor, " prototype"], *, student_temperature: float = 0.1, teacher_temperature: float = 0.04,
) -> Float[Tensor, ""]:  # fmt: skip
    """Cross entropy of the student's assignment to the teacher's, which is centred and sharper.

    Centring keeps one prototype from taking all images, sharpening keeps all from being the same; together they prevent
    collapse.

    Args:
        student: logits of one view of each image.
        teacher: logits of another view; no gradient reaches them.
        centre: subtracted from the teacher's logits; a running mean of them.
        student_temperature, teacher_temperature: of the two softmaxes, above 0.

    Returns:
        A float32 scalar, at least 0, mean over images.

    Source: DINO (arXiv 2104.14294), equation 1 and section 3.1; temperatures of its section 3.2.
    """
    assigned = F.softmax((at_least_fp32(teacher.detach()) - centre) / teacher_temperature, dim=1)
    return F.cross_entropy(at_least_fp32(student) / student_temperature, assigned)
