import torch
from torch import nn
from unit.helpers import Tiny

from lib.core.teacher import StudentTeacher


def pair(**kwargs):
    torch.manual_seed(0)
    return StudentTeacher(Tiny(**kwargs))


def moved(network):
    """Change every weight and buffer of the student."""
    with torch.no_grad():
        for value in network.student.state_dict().values():
            value.add_(1)
    return network


def test_the_teacher_starts_as_the_student_and_shares_nothing():
    network = pair()
    for key, value in network.student.state_dict().items():
        assert torch.equal(value, network.teacher.state_dict()[key])
        assert value.data_ptr() != network.teacher.state_dict()[key].data_ptr()


def test_step_0_copies_the_student():
    network = moved(pair())
    network.update_teacher(0, 0.99)
    for key, value in network.student.state_dict().items():
        assert torch.equal(value, network.teacher.state_dict()[key]), key


def test_weights_and_buffers_follow_by_hand():
    network = pair()
    before = {k: v.clone() for k, v in network.teacher.state_dict().items()}
    moved(network)
    network.update_teacher(9, 0.8)  # min(1 - 1/10, 0.8)
    network_state = network.teacher.state_dict()
    assert "body.1.running_var" in before
    for key, value in before.items():
        if value.is_floating_point():
            assert torch.allclose(network_state[key], value + 0.2, atol=1e-6), key
        else:
            assert torch.equal(network_state[key], value + 1), key  # counters are copied


def test_early_steps_follow_faster():
    network = pair()
    before = network.teacher.classifier.weight.clone()
    moved(network)
    network.update_teacher(1, 0.99)  # min(1 - 1/2, 0.99)
    assert torch.allclose(network.teacher.classifier.weight, before + 0.5, atol=1e-6)


def test_a_teacher_with_statistics_of_its_own_follows_in_its_weights_alone():
    network = moved(pair())
    before = {name: value.clone() for name, value in network.teacher.named_buffers()}
    assert before, "of a network that normalises by batches"
    network.update_teacher(0, 0.99, buffers=False)
    assert all(torch.equal(value, before[name]) for name, value in network.teacher.named_buffers())
    weights = zip(network.teacher.parameters(), network.student.parameters(), strict=True)
    assert all(torch.allclose(mine, theirs) for mine, theirs in weights)


def test_the_student_stays_as_it_is():
    network = moved(pair())
    before = {k: v.clone() for k, v in network.student.state_dict().items()}
    network.update_teacher(5, 0.9)
    assert all(torch.equal(v, before[k]) for k, v in network.student.state_dict().items())


def test_the_teacher_has_no_gradient_and_stays_in_evaluation_mode():
    network = pair()
    for mode in (True, False, True):
        network.train(mode)
        assert network.student.training is mode
        assert not any(m.training for m in network.teacher.modules())
    assert not any(p.requires_grad for p in network.teacher.parameters())
    assert all(p.requires_grad for p in network.student.parameters())
    network.update_teacher(3, 0.9)
    assert not any(p.requires_grad for p in network.teacher.parameters())


def test_forward_is_the_student_in_training_and_the_teacher_in_evaluation():
    network = moved(pair())
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    network.eval()
    assert torch.equal(network(x).logits, network.teacher(x).logits)
    assert torch.equal(network.label(x).logits, network.teacher(x).logits)
    network.train()
    assert torch.equal(network.label(x).logits, network.teacher(x).logits)
    assert torch.equal(network(x).logits, network.student(x).logits)
    assert network(x).logits.requires_grad
    assert not network.label(x).logits.requires_grad


def test_labelling_leaves_the_statistics_of_the_teacher_alone():
    network = pair().train()
    before = network.teacher.state_dict()["body.1.running_mean"].clone()
    network.label(torch.rand(2, 1, 4, 4) + 5)
    assert torch.equal(network.teacher.state_dict()["body.1.running_mean"], before)


def test_a_shared_parameter_of_another_type_is_averaged():
    network = StudentTeacher(nn.Linear(2, 1, bias=False).half())
    with torch.no_grad():
        network.student.weight.fill_(2)
        network.teacher.weight.fill_(1)
    network.update_teacher(1, 0.9)
    assert network.teacher.weight.flatten().tolist() == [1.5, 1.5]
