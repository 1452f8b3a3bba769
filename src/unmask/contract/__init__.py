"""The contract of an explainer, a check at a time, on networks so small that a check takes a moment.

The tests run the checks on every embedded explainer, `unmask check-plugin` on a user's file. A check takes a plug-in or
a `Trial` and returns nothing where all is well; its docstring says what is then true. Otherwise it raises `Breach`, or
lets through what the plug-in raised.
"""

from unmask.contract.behaviour import (
    CHECKS,
    costs_the_declared_passes,
    depends_on_the_target_as_declared,
    draws_as_declared,
    gives_maps,
    is_finite,
    is_independent_of_the_batch,
    is_signed_as_declared,
    leaves_global_generators_alone,
    leaves_its_inputs_alone,
    leaves_the_model_as_found,
    leaves_the_model_as_found_after_an_error,
    takes_every_removal,
    takes_the_removal,
    varies,
    works_without_grad,
)
from unmask.contract.breach import Breach
from unmask.contract.description import (
    accepts,
    bounds,
    describes_itself,
    formulas_count,
    has_a_plain_name,
    has_the_keys,
    names_a_network,
    one_of,
    options_fit,
    takes_its_arguments,
)
from unmask.contract.state import global_states, seed_globally
from unmask.contract.trial import CLASSES, IMAGES, KINDS, PATCH, SIZE, SMALL, Trial, kinds, network, small

__all__ = [
    "CHECKS",
    "CLASSES",
    "IMAGES",
    "KINDS",
    "PATCH",
    "SIZE",
    "SMALL",
    "Breach",
    "Trial",
    "accepts",
    "bounds",
    "costs_the_declared_passes",
    "depends_on_the_target_as_declared",
    "describes_itself",
    "draws_as_declared",
    "formulas_count",
    "gives_maps",
    "global_states",
    "has_a_plain_name",
    "has_the_keys",
    "is_finite",
    "is_independent_of_the_batch",
    "is_signed_as_declared",
    "kinds",
    "leaves_global_generators_alone",
    "leaves_its_inputs_alone",
    "leaves_the_model_as_found",
    "leaves_the_model_as_found_after_an_error",
    "names_a_network",
    "network",
    "one_of",
    "options_fit",
    "seed_globally",
    "small",
    "takes_every_removal",
    "takes_its_arguments",
    "takes_the_removal",
    "varies",
    "works_without_grad",
]
