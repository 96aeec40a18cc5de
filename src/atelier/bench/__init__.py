"""The bench: any methods on any contents and styles, as one resumable grid, one table and one page."""
