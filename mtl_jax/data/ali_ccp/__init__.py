"""Ali-CCP: clicks and conversions of a shop's impressions."""
