"""Backup, restore, erasing, compaction."""
