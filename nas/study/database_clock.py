"""The time by a database's clock, which all who use it share, whatever their own clocks and time
zones say.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class UtcNow(FunctionElement[datetime]):
    """The time of the database's clock in UTC, whatever time zone a session has."""

    type, inherit_cache = sa.DateTime(), True


@compiles(UtcNow)
def _(element: UtcNow, compiler: Any, **_: Any) -> str:
    forms = {"postgresql": "timezone('utc', now())", "mysql": "utc_timestamp()"}
    return forms.get(compiler.dialect.name, "CURRENT_TIMESTAMP")
