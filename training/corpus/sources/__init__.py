"""The registry of the public data sets this project merges: each is one entry, with its reader.

The command's options, the corpus' page and splits, and the cards ask this registry. A new entry
goes last: a corpus keeps the place of its sources here.
"""

from training.corpus.sources.breakhis import BREAKHIS
from training.corpus.sources.idc import IDC
from training.corpus.sources.source import Source

SOURCES: dict[str, Source] = {source.name: source for source in (IDC, BREAKHIS)}
