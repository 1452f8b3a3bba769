"""The leaderboards' tables: their columns, what they are made from, how they are written."""
