"""The studio's page: one page on 127.0.0.1 for those who never type a command, made with Gradio.

`opening.Opening` serves it at the root of the studio's FastAPI application. Everything that it shows comes
from the registry and from `Studio`; nothing comes from the network.
"""
