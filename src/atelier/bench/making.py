"""A method of a protocol, ready to paint."""

from __future__ import annotations

from atelier.bench.pictures import Input
from atelier.bench.protocol import MethodEntry, Protocol
from atelier.session.stylizer import Stylizer


def stylizer(protocol: Protocol, entry: MethodEntry, style: Input) -> Stylizer:
    """The method of an entry with a style. Raises what `Stylizer` raises."""
    from atelier.methods import registry

    kinds = registry.find(entry.method).takes.styles
    return Stylizer(
        style.path if style.path and "picture" in kinds else None,
        text=style.text if style.text and "text" in kinds else None,
        method=entry.method,
        quality=entry.quality,
        size=protocol.size,
        seed=protocol.seed,
        threads=protocol.threads,
        device=protocol.device,
        **entry.knobs,
    )
