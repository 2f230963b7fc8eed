"""The only place that depends on ComfyUI's internals and versions."""
