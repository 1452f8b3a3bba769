"""Two runs side by side: their leaderboards cell by cell, and what made them."""
