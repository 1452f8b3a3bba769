"""Pictures: each file draws one kind."""
