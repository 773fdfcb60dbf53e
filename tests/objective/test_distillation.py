import pytest
import torch

from stopgrad.objective.distillation import self_distillation


def test_it_is_least_where_the_student_assigns_as_the_teacher_does(generator):
    teacher = torch.randn(6, 10, generator=generator) / 10
    centre = torch.zeros(10)
    own = self_distillation(teacher * 0.1 / 0.04, teacher, centre)
    entropy = torch.distributions.Categorical(logits=teacher / 0.04).entropy().mean()
    torch.testing.assert_close(own, entropy)
    assert float(self_distillation(teacher.roll(1, dims=0), teacher, centre)) > float(own)


def test_what_all_images_share_is_centred_away(generator):
    student, teacher = torch.randn(2, 6, 10, generator=generator) / 10
    shared = torch.randn(10, generator=generator)
    plain = self_distillation(student, teacher, torch.zeros(10))
    assert float(self_distillation(student, teacher + shared, shared)) == pytest.approx(float(plain), rel=1e-4)


def test_no_gradient_reaches_the_teacher(generator):
    student, teacher = torch.randn(2, 6, 10, generator=generator).requires_grad_()
    assert torch.autograd.grad(self_distillation(student, teacher, torch.zeros(10)), (student, teacher),
                               allow_unused=True)[1] is None  # fmt: skip
