"""What is made from records: summaries, statistics, tables, figures, report pages, and the paper's items."""
