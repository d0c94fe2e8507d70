"""Celery's part: anchors, and the deletion of what is too old."""

from __future__ import annotations

import logging

from celery import shared_task

from accounts.audit import anchors, retention

logger = logging.getLogger(__name__)
PRUNE_AT_MOST_S = 60.0


@shared_task(name="accounts.audit.tasks.write_anchor")
def write_anchor() -> None:
    try:
        anchors.write()
    except anchors.NotDelivered as error:
        logger.error("no anchor of the audit trail was kept: %s", error)


@shared_task(name="accounts.audit.tasks.prune")
def prune() -> None:
    if deleted := retention.prune(stop_after_s=PRUNE_AT_MOST_S):
        logger.info("deleted %d events of the audit trail: too old", deleted)
