"""AUA: aleatoric-uncertainty-adaptive consistency, then prototypes (Wu et al., TNNLS 2023, arXiv 2111.10989).

Stage 1: L = 0.5 (NLL + Dice) + lam_g GED(student's samples, teacher's samples of the noisy image) + lam_c BCL, on a network
whose output is a Gaussian over logits: ambiguous images vary much by themselves and are constrained less. BCL contrasts
labelled pixels near a boundary.
Stage 2: a fresh network; L = L_sup + L_sup(U, labels of stage 1) + 0.1 (PCL(L) + PCL(U)) with statistics of stage 1.

Changed: the mean of the Gaussian is the network's classifier and BCL reads its projection, so that no layer is added for
use; features have the decoder's resolution; near-boundary vectors are gathered by pixel and the band is symmetric (both
wrong in the released code); statistics are gathered from stage 1's features of the labelled images during stage 2. The teacher
is the app's, or the published one by a switch.
"""

from __future__ import annotations

import copy

import torch

from lib.core.batch import Batch
from lib.core.class_contrast import boundary_contrast, prototype_contrast
from lib.core.features import channels_of, is_valid, label_at
from lib.core.losses import foreground_dice, foreground_supervised_loss
from lib.core.methods.base import Method, StepOutput
from lib.core.perturb import noisy, spread
from lib.core.pseudo import hard_label, passed
from lib.core.regions import as_vectors
from lib.core.schedules import sigmoid_rampup, warm_decay
from lib.core.statistics import ClassStatistics
from lib.core.stochastic import GaussianHead, energy_distance, negative_log_likelihood, sampled
from lib.core.teacher import follow


class AUA(Method):
    """A mean teacher of distributions, and a second round with class statistics."""

    name = "aua"
    title = "AUA"

    def prepare(self) -> None:
        """Head and labeller, each with its copy, and the statistics."""
        student, options = self.network.student, self.spec.aua
        _, features = channels_of(student)
        head = GaussianHead(features, self.classes, options.rank, student.spatial_dims)
        self.parts["head"] = head
        self.parts["head_teacher"] = copy.deepcopy(head).requires_grad_(False)
        self.parts["initial"] = copy.deepcopy(student).requires_grad_(False)
        self.parts["labeller"] = copy.deepcopy(student).requires_grad_(False)
        self.parts["statistics"] = ClassStatistics(self.classes, features)

    @property
    def pretraining(self) -> float:
        """Share of the run that stage 1 has."""
        return self.spec.aua.first_stage

    def stage(self, step_no: int) -> tuple[int, int]:
        """Each stage is a training of its own when the second starts afresh."""
        if self.spec.aua.second_stage == "continue":
            return super().stage(step_no)
        first = self.pretraining_steps
        return (0, first) if step_no < first else (first, self.total_steps)

    def pretraining_step(self, batch: Batch, step_no: int) -> StepOutput:
        """Stage 1: likelihood, distance of the distributions, contrast at boundaries."""
        options, image_u = self.spec.aua, batch.image_u_weak
        generator = self.generator(step_no, image_u.device)
        output = self.in_parts(self.network, torch.cat([batch.image_l, image_u]), len(batch.image_l))
        logits_l = output.logits[: len(batch.image_l)]
        samples_l, samples_u = sampled(output, self.parts["head"], options.samples, generator).split(
            [len(batch.image_l), len(image_u)], dim=1
        )
        image_t = noisy(image_u, options.noise * spread(image_u), generator)
        with torch.no_grad():
            taught = self.network.label(image_t, training=options.teacher == "training")
            samples_t = sampled(taught, self.parts["head_teacher"], options.samples, generator)

        nll, dice = negative_log_likelihood(samples_l, batch.label_l), foreground_dice(logits_l, batch.label_l)
        loss_sup = 0.5 * (nll + dice)
        loss_unsup = energy_distance(samples_u, samples_t, is_valid(batch.ignore_u)).mean()
        z_l = output.projection[: len(batch.image_l)]
        label = label_at(batch.label_l, z_l.shape[2:])
        loss_boundary = boundary_contrast(z_l, label, options.temperature, options.boundary_pixels, generator)
        weight = options.distance_weight * sigmoid_rampup(step_no, self.pretraining_steps)
        loss = loss_sup + weight * loss_unsup + options.boundary_weight * loss_boundary
        logs = {"loss_sup": loss_sup, "loss_unsup": loss_unsup, "loss_boundary": loss_boundary}
        return StepOutput(loss, logits_l, {**logs, "weight": weight, "mask_ratio": 1.0})

    def pretraining_done(self) -> None:
        """Stage 1 becomes the labeller; the network starts anew, if so chosen."""
        student = self.network.student
        self.parts["labeller"].load_state_dict(student.state_dict())
        for running in self.parts["statistics"].buffers():
            running.zero_()  # a run that went on from a model has those of other features
        if self.spec.aua.second_stage == "fresh":
            student.load_state_dict(self.parts["initial"].state_dict())
            self.network.teacher.load_state_dict(student.state_dict())

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """Stage 2: labels, labels of stage 1, and the prototypes."""
        with torch.no_grad():
            stage_1 = self.parts["labeller"].eval()(torch.cat([batch.image_l, batch.image_u_weak]))
        label_u = hard_label(stage_1.logits[len(batch.image_l) :], batch.ignore_u)
        label = torch.cat([batch.label_l, label_u])
        small = label_at(label, stage_1.feature.shape[2:])
        count_l = len(batch.image_l)
        statistics = self.parts["statistics"]
        statistics.update(as_vectors(stage_1.feature[:count_l]), small[:count_l].flatten())

        output = self.in_parts(self.network, torch.cat([batch.image_l, batch.image_u_weak]), count_l)
        terms = [
            self.labelled_loss(logits, y, foreground_supervised_loss)
            for logits, y in ((output.logits[:count_l], batch.label_l), (output.logits[count_l:], label_u))
        ]
        mean, variance = statistics.mean.clone(), statistics.variance.clone()
        contrast = sum(
            prototype_contrast(as_vectors(f), y.flatten(), mean, variance, self.spec.aua.prototype_temperature)
            for f, y in ((output.feature[:count_l], small[:count_l]), (output.feature[count_l:], small[count_l:]))
        )
        loss = terms[0] + terms[1] + self.spec.aua.prototype_weight * contrast
        logs = {"loss_sup": terms[0], "loss_unsup": terms[1], "loss_contrast": contrast}
        logs["mask_ratio"] = passed(label_u, batch.ignore_u)
        return StepOutput(loss, output.logits[:count_l], logs)

    def after_step(self, step_no: int, decay: float) -> None:
        """The head has a teacher too; a fresh network warms its average up anew."""
        first = self.pretraining_steps
        own = step_no - first if step_no >= first and self.spec.aua.second_stage == "fresh" else step_no
        follow(self.parts["head_teacher"], self.parts["head"], warm_decay(own, decay))
        if step_no < first and self.spec.aua.teacher == "training":
            follow(self.network.teacher, self.network.student, warm_decay(own, decay))
        else:
            super().after_step(own, decay)
