"""Reports as PDF: which, laid out how, on what paper."""
