"""The app's own code: what clinicians open in a browser and scripts call over gradio_client."""
