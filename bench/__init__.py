"""Peers, measurements, plots and reports."""
