"""A Gradio app with one endpoint that takes a file and does nothing with it, as a baseline.

Run as `python do_nothing_app.py PORT`; it is mounted and served as ours is.
"""

from __future__ import annotations

import sys

import fastapi
import gradio as gr
import uvicorn


def built() -> gr.Blocks:
    """The app: `/nothing` takes the inputs of our `/predict` and answers with an empty object."""
    with gr.Blocks(analytics_enabled=False) as app:
        with gr.Row(visible=False):
            image = gr.File()
            model = gr.Dropdown(["some"], value="some")
            answer = gr.JSON()

        def nothing(image: str, model: str) -> dict[str, str]:
            return {}

        gr.on([], nothing, [image, model], answer, api_name="nothing", concurrency_limit=2)
    return app


def main() -> None:
    """Serve until interrupted."""
    served = gr.mount_gradio_app(fastapi.FastAPI(), built().queue(), path="/", ssr_mode=False)
    uvicorn.run(served, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
