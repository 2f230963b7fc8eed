"""PixelDiT in pure PyTorch: networks, checkpoints and flow sampling, straight to pixels.

import pixeldit_core as pc

model = pc.load_checkpoint("imagenet256_pixeldit_xl_epoch320.ckpt")
x = pc.sample(model, pc.class_condition(model, [207, "tabby cat"]), seeds=[0, 1])
pc.contact_sheet(pc.to_uint8(model, x)).save("images.png")
"""

from .checkpoints.inspect import CheckpointInfo, inspect_checkpoint
from .checkpoints.load import load_checkpoint
from .checkpoints.lora import apply_lora
from .checkpoints.read import read_checkpoint
from .checkpoints.save import save_checkpoint
from .conditions import class_condition, null_condition, text_condition
from .editing import edit
from .families import FAMILIES, VARIANTS, Family
from .families.pixeldit.class_to_image import PixelDiT
from .families.pixeldit.params import PixelDiTParams, PixelDiTT2IParams
from .families.pixeldit.text_to_image import PixelDiTT2I
from .families.pixeldit2.network import PixelDiT2
from .families.pixeldit2.params import PixelDiT2Params
from .families.pixelhdm.network import PixelHDM
from .families.pixelhdm.params import PixelHDMParams
from .families.xpred.params import XPredParams
from .flow.guidance import cfg_function, cfg_schedule, is_guided
from .flow.solvers import SOLVERS
from .flow.times import shift_time
from .images import contact_sheet, from_image, to_uint8
from .model import Model, build_model
from .sampling import sample, time_grid, unit_noise
from .settings import SETTINGS, SamplingSettings
from .spec import ModelSpec

__version__ = "0.1.0"

__all__ = [
    "FAMILIES",
    "SETTINGS",
    "SOLVERS",
    "VARIANTS",
    "CheckpointInfo",
    "Family",
    "Model",
    "ModelSpec",
    "PixelDiT",
    "PixelDiT2",
    "PixelDiT2Params",
    "PixelDiTParams",
    "PixelDiTT2I",
    "PixelDiTT2IParams",
    "PixelHDM",
    "PixelHDMParams",
    "SamplingSettings",
    "XPredParams",
    "apply_lora",
    "build_model",
    "cfg_function",
    "cfg_schedule",
    "class_condition",
    "contact_sheet",
    "edit",
    "from_image",
    "inspect_checkpoint",
    "is_guided",
    "load_checkpoint",
    "null_condition",
    "read_checkpoint",
    "sample",
    "save_checkpoint",
    "shift_time",
    "text_condition",
    "time_grid",
    "to_uint8",
    "unit_noise",
]
