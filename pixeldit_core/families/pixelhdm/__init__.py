"""PixelHDM, text-to-image."""
