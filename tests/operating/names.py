"""The names of measures, as the modules that hold them declare them."""

from __future__ import annotations

from types import ModuleType

import perfuse_registry.measures
import perfuse_renderer.measures
import perfuse_trainer.measures
from perfuse.serving import metrics

MODULES = (metrics, perfuse_registry.measures, perfuse_trainer.measures, perfuse_renderer.measures)


def declared(*modules: ModuleType) -> set[str]:
    """The names of some modules, by default of all that have any."""
    return {
        value
        for module in modules or MODULES
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and value.startswith("perfuse_")
    }
