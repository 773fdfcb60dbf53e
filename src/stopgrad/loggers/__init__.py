"""Where a run's figures are logged: TensorBoard, Weights & Biases, MLflow."""
