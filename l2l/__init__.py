"""Learning to learn in JAX: search for neural architectures together with their training recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2l.lazy import make_lazy_names

if TYPE_CHECKING:
    from l2l.api import search as search
    from l2l.engine.evaluate import evaluate as evaluate
    from l2l.errors import InputError as InputError
    from l2l.errors import SearchError as SearchError
    from l2l.export.module import load as load
    from l2l.optuna_sampler.sampler import ControllerSampler as ControllerSampler
    from l2l.space import Candidate as Candidate
    from l2l.space import Categorical as Categorical
    from l2l.space import Integer as Integer
    from l2l.space import Real as Real
    from l2l.space import SearchSpace as SearchSpace
    from l2l.types import Learner as Learner
    from l2l.types import Outcome as Outcome
    from l2l.types import Spec as Spec
    from l2l.types import Status as Status
    from l2l.types import Trial as Trial

__version__ = "0.1.0"

__getattr__, __all__ = make_lazy_names(
    __name__,
    {
        **dict.fromkeys(("Candidate", "Categorical", "Integer", "Real", "SearchSpace"), "l2l.space"),
        **dict.fromkeys(("Learner", "Outcome", "Spec", "Status", "Trial"), "l2l.types"),
        "search": "l2l.api",
        "evaluate": "l2l.engine.evaluate",
        "load": "l2l.export.module",
        "ControllerSampler": "l2l.optuna_sampler.sampler",
        **dict.fromkeys(("InputError", "SearchError"), "l2l.errors"),
    },
)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
