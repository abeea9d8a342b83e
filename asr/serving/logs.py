"""Logs as a JSON object a line: when, how grave, what happened, and its details as fields of their own.

A detail is given as `log.info("session", extra={"fields": {...}})`. No audio, text or token is ever logged.
"""

from __future__ import annotations

import json
import logging
import logging.config
from datetime import datetime, timezone


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(level: str) -> None:
    """Everything to standard error. uvicorn tells its lines about connections to nobody: sessions do."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JsonLines}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {"asr": {"level": level.upper()}, "uvicorn": {"level": "WARNING"}},
        }
    )
