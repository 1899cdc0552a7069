"""Exports of annotation tools other than Argilla's and Label Studio's JSON."""
