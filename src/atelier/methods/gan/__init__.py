"""Networks trained against a critic, between folders of unpaired pictures."""
