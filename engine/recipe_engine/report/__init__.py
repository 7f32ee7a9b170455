"""What a run is told about: the result, the model card."""
