"""All Gradio wiring: one file a page, plus the endpoints and the look."""
