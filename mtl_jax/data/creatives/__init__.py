"""Generated ad creatives with known truth."""
