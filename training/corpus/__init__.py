"""The merged corpus: sources read, checked, split, and given out row by row."""
