"""A run from start to finish: controls, inputs, stylisation, the receipt and its replay."""
