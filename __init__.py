"""ComfyUI-PixelDiT: PixelDiT in ComfyUI, straight to pixels."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI when it loads the pack; without ComfyUI this module still imports."""
    from .nodes import PixelDiTExtension

    return PixelDiTExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
