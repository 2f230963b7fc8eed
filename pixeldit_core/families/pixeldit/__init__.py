"""The official families: class-conditional and text-to-image PixelDiT."""
