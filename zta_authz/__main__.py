"""`python -m zta_authz` is `zta-authz`."""

from __future__ import annotations

import sys

from zta_authz.cli import main

sys.exit(main())
