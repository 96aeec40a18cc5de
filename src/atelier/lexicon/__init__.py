"""The lexicon: which words describe a style, learnt from labelled pictures; `atelier train words`."""
