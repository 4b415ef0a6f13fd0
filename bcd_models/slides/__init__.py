"""Whole slides: tissue, tile by tile through a model, becomes a map and files of it.

``Predictor.predict_slide`` and ``bcd slide`` are the ways in, for any model of the five members in
``model.py``; ``predict.py`` is where to start reading. OpenSlide, pyarrow, scipy and shapely come
with ``pip install 'bcd-models[slides]'``.
"""
