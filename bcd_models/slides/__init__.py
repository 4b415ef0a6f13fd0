"""Whole slides: found tissue, tile by tile through a model, to a map and files of it.

``Predictor.predict_slide`` and ``bcd slide`` are the ways in; ``predict.py`` is where to start
reading. OpenSlide, pyarrow, scipy and shapely come with
``pip install 'bcd-models[slides]'``.
"""
