"""ONNX files, written by the onnx package and read without it."""
