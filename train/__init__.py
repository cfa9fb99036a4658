"""Training, distilling, freezing and measuring: Lightning modules and the pipeline."""
