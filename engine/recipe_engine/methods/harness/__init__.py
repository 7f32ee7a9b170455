"""Tasks of the Language Model Evaluation Harness, from files that are pinned by their content."""
