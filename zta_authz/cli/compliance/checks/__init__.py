"""The checks: each a pure function of an installation that yields what it finds, what is missing, what can't be seen.

asking     is every request put to zta-authz
answers    what no answer means, and how long proxies wait for one
requests   do they send requests whole, with their evidence
tokens     which tokens are believed, and for how long
rules      what the policies say, and who they believe
transport  how connections are secured
network    what reaches what
pods       what workloads may
records    what is written down and watched
"""

from __future__ import annotations
