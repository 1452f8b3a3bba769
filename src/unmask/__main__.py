"""`python -m unmask`, the same as the `unmask` command."""

from unmask.cli import main

raise SystemExit(main())
