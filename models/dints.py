"""DiNTS (He et al., CVPR 2021, arXiv 2103.15954) of an architecture that was found, given in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.networks.nets import DiNTS, TopologyInstance


class FoundDiNTS(DiNTS):
    """MONAI's DiNTS; its names for weights are kept.

    dints_space: arguments of MONAI's TopologyInstance; of its `arch_code` the first list says which paths there are,
    the second which operation is on each. node_a: which nodes there are.
    """

    def __init__(self, dints_space: Mapping[str, Any], node_a: Sequence[Sequence[int]], **arguments: Any) -> None:
        codes = [np.array(code) for code in dints_space["arch_code"]]
        space = TopologyInstance(**{**dints_space, "arch_code": codes})
        super().__init__(dints_space=space, node_a=torch.tensor(node_a), **arguments)


def definition(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `FoundDiNTS` in the words of MONAI's configurations."""
    space = arguments["dints_space"]
    codes = [f"$np.array({code})" for code in space["arch_code"]]
    topology = {"_target_": "TopologyInstance", **space, "arch_code": codes}
    return {**arguments, "dints_space": topology, "node_a": f"$torch.tensor({arguments['node_a']})"}
