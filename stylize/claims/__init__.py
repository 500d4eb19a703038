"""Claims: how runs that share work, on one machine or several, agree on who paints what."""

from stylize.claims.claims import Claims, claims_beside, claims_inside
from stylize.claims.watch import STALE, Watch, refresh_interval

__all__ = ["STALE", "Claims", "Watch", "claims_beside", "claims_inside", "refresh_interval"]
