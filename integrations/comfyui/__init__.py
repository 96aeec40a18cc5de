"""atelier's methods as nodes of ComfyUI: put this folder into ComfyUI's custom_nodes."""

from atelier.exports.comfyui import nodes

NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = nodes()

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
