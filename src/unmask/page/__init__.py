"""The report's page: what goes into it, its template, style and script."""
