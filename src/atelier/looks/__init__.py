"""Filter looks: painted, drawn, printed and assembled from pieces."""
