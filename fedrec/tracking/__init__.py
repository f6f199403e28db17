"""Experiment trackers behind one small Protocol: MLflow, TensorBoard, Weights & Biases. Each is an optional extra."""
