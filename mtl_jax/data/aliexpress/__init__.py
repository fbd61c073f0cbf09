"""AliExpress: clicks and conversions of search results."""
