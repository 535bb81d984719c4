"""All training methods by name. To add one: write its file, add its line here, add a test subclass."""

from lib.core.methods.base import Method, StepOutput
from lib.core.methods.fixmatch import FixMatch
from lib.core.methods.loco import LoCo
from lib.core.methods.mean_teacher import MeanTeacher
from lib.core.methods.supervised import Supervised
from lib.core.spec import MethodSpec, SpecError
from lib.core.teacher import StudentTeacher

METHODS: dict[str, type[Method]] = {m.name: m for m in (LoCo, Supervised, MeanTeacher, FixMatch)}


def build_method(network: StudentTeacher, spec: MethodSpec, classes: int, total_steps: int, seed: int) -> Method:
    """The method that `spec.name` asks for. Raises `SpecError` listing the valid names."""
    return method_class(spec.name)(network, spec, classes, total_steps, seed)


def method_class(name: str) -> type[Method]:
    """Look a method up. Raises `SpecError` listing the valid names."""
    if name not in METHODS:
        raise SpecError(f"expected `method` to be one of {', '.join(METHODS)}, but got {name!r}; choose one of them")
    return METHODS[name]


__all__ = ["METHODS", "Method", "StepOutput", "build_method", "method_class"]
