"""Generated impressions with known truth and tasks that disagree."""
