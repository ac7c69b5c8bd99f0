"""The jobs room: RQ with a safe payload, an allow-list, and workers that lose nothing they accepted."""

from .component import Jobs
from .face import JobsFace
from .payload import JsonSerializer
from .settings import JobsSettings
from .task import Dispatcher, Task

__all__ = ["Dispatcher", "Jobs", "JobsFace", "JobsSettings", "JsonSerializer", "Task"]
