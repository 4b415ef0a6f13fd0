"""The same forward through ONNX Runtime or torch, and the threads that it runs in."""
