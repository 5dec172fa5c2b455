"""Keep query strings out of the access log: they may hold what a user searched for."""

import logging


class QueryStringFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Cut the path of uvicorn's access line before its query string; keep every line."""
        if isinstance(record.args, tuple) and len(record.args) == 5:  # client, method, path, version, status
            client, method, path, version, status = record.args
            record.args = (client, method, str(path).partition("?")[0], version, status)
        return True


def hide_query_strings() -> None:
    """Install the filter once; uvicorn configures its loggers before the app starts."""
    logger = logging.getLogger("uvicorn.access")
    if not any(isinstance(each, QueryStringFilter) for each in logger.filters):
        logger.addFilter(QueryStringFilter())
