"""Writes the bundled workflows: `python tools/make_workflows.py`. Thumbnails are made from screenshots."""

import templates_classes
import templates_families
import templates_text
import templates_training
from graph import OUT

if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    templates_classes.quickstart()
    templates_classes.imagenets()
    templates_classes.with_ksampler()
    templates_classes.mix()
    templates_text.text_to_image()
    templates_text.image_to_image()
    templates_text.inpaint()
    templates_families.pixeldit2()
    templates_families.digits()
    templates_families.pixelhdm()
    templates_training.train_loras()
