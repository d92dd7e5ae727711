"""What context models make of documents, in one call."""

from collections.abc import Iterable

from bltdata.stats.context_model import ContextModel


def context_bits(documents: Iterable[bytes]) -> tuple[float, float, float]:
    """Bits that models of order 0, 1 and 2 need for documents, in this order."""
    model = ContextModel()
    for document in documents:
        model.add(document)
    return model.bits
