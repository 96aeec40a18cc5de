"""What methods become elsewhere: ONNX files, web pages, and nodes of other programs."""
