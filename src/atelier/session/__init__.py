"""A run from start to finish: controls, inputs, the painting, the receipt and its replay."""
