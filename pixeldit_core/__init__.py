"""PixelDiT in pure PyTorch: networks, checkpoints and flow sampling, straight to pixels.

import pixeldit_core as pc

model = pc.load_checkpoint("imagenet256_pixeldit_xl_epoch320.ckpt")
x = pc.sample(model, pc.class_condition(model, [207, "tabby cat"]), seeds=[0, 1])
pc.contact_sheet(pc.to_uint8(model, x)).save("pictures.png")
"""

from .checkpoints.load import CheckpointInfo, inspect_checkpoint, load_checkpoint
from .checkpoints.lora import apply_lora
from .checkpoints.read import read_checkpoint
from .checkpoints.save import save_checkpoint
from .families import FAMILIES, PRESETS, Family
from .flow.grid import shift_time
from .flow.guidance import is_guided
from .flow.sample import noise, sample, time_grid
from .flow.solvers import SOLVERS
from .flow.strategies import combine, schedule
from .images import contact_sheet, from_image, to_uint8
from .model import Model, build, class_condition, null_condition, text_condition
from .networks.pixeldit import PixelDiT, PixelDiTParams
from .networks.pixeldit_t2i import PixelDiTT2I, PixelDiTT2IParams
from .networks.pixelhdm import PixelHDM, PixelHDMParams
from .networks.xpred import XPredParams
from .recipes import RECIPES, Recipe

__version__ = "0.1.0"

__all__ = [
    "FAMILIES",
    "PRESETS",
    "RECIPES",
    "SOLVERS",
    "CheckpointInfo",
    "Family",
    "Model",
    "PixelDiT",
    "PixelDiTParams",
    "PixelDiTT2I",
    "PixelDiTT2IParams",
    "PixelHDM",
    "PixelHDMParams",
    "Recipe",
    "XPredParams",
    "apply_lora",
    "build",
    "class_condition",
    "combine",
    "contact_sheet",
    "from_image",
    "inspect_checkpoint",
    "is_guided",
    "load_checkpoint",
    "noise",
    "null_condition",
    "read_checkpoint",
    "sample",
    "save_checkpoint",
    "schedule",
    "shift_time",
    "text_condition",
    "time_grid",
    "to_uint8",
]
