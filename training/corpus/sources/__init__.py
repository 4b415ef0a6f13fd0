"""The registry of the public data sets this project merges: each is one entry, with its reader.

Anybody's own images are a source too, whose name their list gives.

The command's options, the corpus' page and splits, and the cards ask this registry. A new entry
goes last: a corpus keeps the place of its sources here.
"""

from training.corpus.sources import images
from training.corpus.sources.breakhis import BREAKHIS
from training.corpus.sources.idc import IDC
from training.corpus.sources.source import Source

SOURCES: dict[str, Source] = {source.name: source for source in (IDC, BREAKHIS)}


def get_source(name: str) -> Source:
    """Return the source of a name: a public data set, else images handed in under it."""
    return SOURCES.get(name) or images.describe(name)
