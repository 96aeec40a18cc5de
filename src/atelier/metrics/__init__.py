"""What is measured on a picture and its inputs; one file a metric."""
