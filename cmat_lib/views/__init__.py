"""Views of the market that come from elsewhere than its candles."""
