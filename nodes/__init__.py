"""The nodes, as ComfyUI's graph editor shows them."""

from comfy_api.latest import ComfyExtension, io

from .conditioning import PixelDiTClassLabel, PixelDiTTextPrompt
from .custom_sampling import PixelDiTScheduler, PixelDiTSolver
from .editing import PixelDiTEdit
from .guidance import PixelDiTCFGInterval, PixelDiTCFGRescale, PixelDiTCFGSchedule
from .host import folders, owners, routes
from .loader import PixelDiTLoader
from .lora import PixelDiTLoRA
from .pixels import PixelDiTDecode, PixelDiTEncode, PixelDiTSize
from .sampling import PixelDiTSampler
from .save import PixelDiTSaveModel

NODES: list[type[io.ComfyNode]] = [
    PixelDiTLoader,
    PixelDiTLoRA,
    PixelDiTClassLabel,
    PixelDiTTextPrompt,
    PixelDiTSampler,
    PixelDiTEdit,
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

folders.register()  # the nodes' lists are made from them


class PixelDiTExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes; none for a second copy of the pack, which would register everything twice."""
        if folder := owners.find_copy(NODES):
            owners.warn_of_copy(folder)
            return []
        routes.register()
        owners.watch(NODES)
        return NODES
