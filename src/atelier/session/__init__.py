"""One picture's way: controls, inputs, the run, its receipt and its replay."""
