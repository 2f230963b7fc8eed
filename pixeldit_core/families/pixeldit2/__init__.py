"""PixelDiT2, class-conditional: it looks at its own noisy input through a frozen encoder."""
