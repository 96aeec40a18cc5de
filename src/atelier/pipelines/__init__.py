"""Published pipelines of several networks: their files, their memory, and their parts opened."""
