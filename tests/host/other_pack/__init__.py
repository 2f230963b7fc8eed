"""Another pack with a node of ours, as there are some."""


class PixelDiTSampler:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "sample"
    CATEGORY = "another pack"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"pipe": ("PIXELDIT_PIPE",)}}

    def sample(self, pipe):
        return (None,)


NODE_CLASS_MAPPINGS = {"PixelDiTSampler": PixelDiTSampler}
