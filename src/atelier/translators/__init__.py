"""Networks that translate pictures between domains, and their critics.

Modules have the published names, so that published files load as they are.
"""
