"""Studies with scores on a real journal, and those who ask for the next one."""

import time

import numpy as np

from lib.activelearning.board import Board
from lib.activelearning.next_image import NextImage
from lib.store.records import Score

PATIENT = r"^(p\d+)_"


class Studies:
    fetches = True

    def __init__(self, images):
        self.images, self.labelled, self.wanted = list(images), set(), []

    def list_images(self):
        return list(self.images)

    def get_unlabeled_images(self):
        return [image for image in self.images if image not in self.labelled]

    def get_image_info(self, image_id):
        return {}

    def prefetch(self, images):
        self.wanted.append(images)


def add_scores(project, images, version=1, seed=0, extra=None):
    """Random scores; `extra`: term to its value by image."""
    rng = np.random.default_rng(seed)
    rows = []
    for image in images:
        terms = {f"polyp/present/{t}": rng.random() for t in ("threshold_deficit", "margin", "feature_contrast")}
        terms |= {
            f"image/{t}": rng.random() for t in ("entropy", "margin", "clasp", "clasp polyp", "border", "epistemic")
        }
        terms |= {name: values[image] for name, values in (extra or {}).items()}
        rows.append(Score(image, terms, rng.normal(size=6).astype(np.float16).tobytes()))
    project.journal.put_scores("frame", version, rows, time.time())


def add_version(project, dice=0.8, cases=5):
    return project.journal.add_version("frame", "x.pt", "0", None, dice, cases, {}, True, time.time())


def submit(project, image, client="ann"):
    group = image.split("_")[0]
    project.journal.add_submission(image, group, f"{image}.png", "0", {"polyp": 1}, client, 1, time.time())
    project.journal.release(image)


def board_of(project):
    return Board("frame", project, PATIENT, 1, 0)


def strategy_of(project, name="low_contrast", control_share=0.0):
    return NextImage(name, board_of(project), control_share)


def images_of(count):
    return [f"p{i:04d}_1" for i in range(count)]


def scored(project, count=40, labelled=10):
    """Studies with scores by a live model, the first of them labelled."""
    studies = Studies(images_of(count))
    add_scores(project, studies.images)
    for image in studies.images[:labelled]:
        submit(project, image)
    add_version(project)
    return studies


def ask(strategy, studies, client="ann"):
    return strategy({"client_id": client}, studies)
