"""Tests that need ComfyUI. Those of `inside/` run in its process: `test_inside.py` starts them."""

collect_ignore = ["inside"]
