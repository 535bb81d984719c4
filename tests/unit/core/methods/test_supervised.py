import torch
from unit.core.methods.base import LATE, MethodSuite, batch_of


class TestSupervised(MethodSuite):
    name = "supervised"
    learns_from_unlabelled = False
    draws = False

    def test_unlabelled_images_make_no_difference_and_are_not_asked_for(self):
        one, other = batch_of(), batch_of()
        other.image_u_weak, other.image_u_strong = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
        assert float(self.build().step(one, LATE).loss) == float(self.build().step(other, LATE).loss)
        assert not self.build().views.unlabelled
