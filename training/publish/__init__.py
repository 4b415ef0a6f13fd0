"""Publishing to the Hub: models, the corpus, the Space."""
