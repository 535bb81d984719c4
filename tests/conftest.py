"""How slow the machine is decides no test: Hypothesis neither limits the time of an example nor that of making one."""

import os

from hypothesis import HealthCheck, settings

if "CI" not in os.environ:  # there Hypothesis has a profile of its own, which is as patient and repeats itself
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("patient", patient)
    settings.load_profile("patient")
