"""The nodes, as ComfyUI's graph editor shows them."""

from comfy_api.latest import ComfyExtension, io

from .conditioning import PixelDiTClassLabel, PixelDiTTextPrompt
from .custom_sampling import PixelDiTScheduler, PixelDiTSolver
from .guidance import PixelDiTCFGInterval, PixelDiTCFGRescale, PixelDiTCFGSchedule
from .host import folders, routes
from .loader import PixelDiTLoader
from .lora import PixelDiTLoRA
from .pixels import PixelDiTDecode, PixelDiTEncode, PixelDiTSize
from .sampling import PixelDiTSampler
from .save import PixelDiTSaveModel

folders.register()
routes.register()


class PixelDiTExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            PixelDiTLoader,
            PixelDiTLoRA,
            PixelDiTClassLabel,
            PixelDiTTextPrompt,
            PixelDiTSampler,
            PixelDiTCFGInterval,
            PixelDiTCFGRescale,
            PixelDiTCFGSchedule,
            PixelDiTScheduler,
            PixelDiTSolver,
            PixelDiTDecode,
            PixelDiTEncode,
            PixelDiTSize,
            PixelDiTSaveModel,
        ]
