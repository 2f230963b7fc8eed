"""Lets torchvision be imported beside a torch that its compiled part was not built for (a CPU torch beside a CUDA one).

torch-fidelity imports torchvision, and transformers does where it is installed; none of the tests uses an operator of
its compiled part. Where torchvision fits torch, nothing is done.
"""

import importlib.util
import sys

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_defined = []  # a library's operators last as long as it


def define_missing_operators():
    """Declare the operators that torchvision's Python part registers at import, if its compiled part is unusable."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            library.define(schema)
        _defined.append(library)
