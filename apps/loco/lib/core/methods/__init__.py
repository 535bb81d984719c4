"""All training methods by name. To add one: write its file, add its line here, add a test subclass."""

from dataclasses import replace

import torch
from torch import nn

from lib.core.methods.aua import AUA
from lib.core.methods.base import Method, StepOutput
from lib.core.methods.bcp import BCP
from lib.core.methods.c3s3 import C3S3
from lib.core.methods.cad import CAD
from lib.core.methods.cps import CPS
from lib.core.methods.crii import CRII
from lib.core.methods.ersr import ERSR
from lib.core.methods.fixmatch import FixMatch
from lib.core.methods.ideal import IDEAL
from lib.core.methods.loco import LoCo
from lib.core.methods.lpc import LPC
from lib.core.methods.m3hl import M3HL
from lib.core.methods.mccs import MCCS
from lib.core.methods.mean_teacher import MeanTeacher
from lib.core.methods.medl import MEDL
from lib.core.methods.mn import MN
from lib.core.methods.spcl import SPCL
from lib.core.methods.supervised import Supervised
from lib.core.methods.transmedseg import TransMedSeg
from lib.core.methods.ua_mt import UAMT
from lib.core.methods.unimatch import UniMatch
from lib.core.networks import build_network, default_network
from lib.core.spec import MethodSpec, SpecError, TaskSpec
from lib.core.teacher import StudentTeacher

METHODS: dict[str, type[Method]] = {
    "loco": LoCo,
    "supervised": Supervised,
    "mean_teacher": MeanTeacher,
    "fixmatch": FixMatch,
    "ua_mt": UAMT,
    "cps": CPS,
    "unimatch": UniMatch,
    "bcp": BCP,
    "m3hl": M3HL,
    "lpc": LPC,
    "spcl": SPCL,
    "mn": MN,
    "aua": AUA,
    "c3s3": C3S3,
    "ersr": ERSR,
    "medl": MEDL,
    "transmedseg": TransMedSeg,
    "crii": CRII,
    "ideal": IDEAL,
    "cad": CAD,
    "mccs": MCCS,
}


def build_method(
    network: StudentTeacher,
    spec: MethodSpec,
    classes: int,
    total_steps: int,
    seed: int,
    second: nn.Module | None = None,
) -> Method:
    """The method that `spec.name` asks for; `second` as `second_network` makes it. Raises `SpecError` on other names."""
    return method_class(spec.name)(network, spec, classes, total_steps, seed, second)


def second_network(spec: TaskSpec) -> nn.Module | None:
    """The second network that the method declares, on the CPU, with random numbers of its own; None without one."""
    kind = method_class(spec.method.name).second
    if kind is None:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.training.seed + 1)
        if kind == "twin":
            return build_network(spec.network, spec.data.spatial_dims)
        name = default_network("slice", cuda=spec.network.name == default_network("volume", cuda=True))
        return build_network(replace(spec.network, name=name), 2)


def method_class(name: str) -> type[Method]:
    """Look a method up. Raises `SpecError` listing the valid names."""
    if name not in METHODS:
        known = ", ".join(map(marked, METHODS))
        raise SpecError(f"expected `method` to be one of {known}, but got {name!r}; choose one of them")
    return METHODS[name]


def note(name: str) -> str:
    """What must stand beside a method's name wherever people read it: "reconstruction", or nothing, as for unknown names."""
    return "reconstruction" if name in METHODS and METHODS[name].reconstruction else ""


def marked(name: str) -> str:
    """A method's name with its note.

    >>> marked("loco"), marked("crii")
    ('loco', 'crii (reconstruction)')
    """
    return f"{name} ({note(name)})" if note(name) else name


def described(name: str) -> str:
    """A method's name for people; a reconstruction says that it is one. Raises `SpecError` listing the valid names."""
    title = method_class(name).title
    return f"{title}, a {note(name)} from little public text" if note(name) else title


__all__ = [
    "METHODS",
    "Method",
    "StepOutput",
    "build_method",
    "described",
    "marked",
    "method_class",
    "note",
    "second_network",
]
