"""Filter looks: painted, drawn, printed and pieced together."""
