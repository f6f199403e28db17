"""All APIs and pages of the service; the busy ones first, since routers are searched in this order."""

from collections.abc import Sequence

from fedrec_client.serving.starting import MakeRoutes

ROUTES: Sequence[MakeRoutes] = ()
